//! What is stored, in memory: every file and every part with its end and its size, and how much
//! room is left.
//!
//! Filled from one listing at the start and kept in step by whoever writes or deletes. Nothing here
//! touches the store: operations that make objects superfluous return their paths. Room is reserved
//! before bytes are written, so that many uploads at once do not exceed the quota together.
//!
//! Drawn pictures give way: when there is no room, those that would end first are dropped, because
//! they can be had again. Uploaded files never are.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::FilesError;
use super::name::{FileId, Origin, PartName, StoredName};

/// What an object takes beside its content, in bytes: its last block on the disk, its entry in the
/// folder, its place in memory. Rounded up generously: without it, empty files would be free, and
/// with it the default quota ends at 650 thousand files, whose index takes some 150 MB.
pub(super) const OVERHEAD_BYTES: u64 = 16 << 10;

/// Folder of the finished files.
pub(super) const HOSTED: &str = "hosted";
/// Folder of the parts.
pub(super) const PARTS: &str = "parts";

/// Where a file lies.
pub(super) fn file_path(name: &StoredName) -> String {
    format!("{HOSTED}/{name}")
}

/// Where a part lies.
pub(super) fn part_path(name: &PartName) -> String {
    format!("{PARTS}/{name}")
}

/// What the path of an object says.
pub(super) enum Listed {
    File(StoredName),
    Part(PartName),
}

impl Listed {
    /// Reads a path; `None` for what is none of ours.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (folder, name) = path.split_once('/')?;
        match folder {
            HOSTED => StoredName::parse(name).map(Self::File),
            PARTS => PartName::parse(name).map(Self::Part),
            _ => None,
        }
    }
}

/// A part that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: PartName,
    pub(super) bytes: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Index {
    max_bytes: u64,
    /// Bytes of files and parts, and those reserved.
    used: u64,
    /// Bytes of the files that give way.
    yielding: u64,
    files: HashMap<FileId, (StoredName, u64)>,
    by_end: BTreeSet<(u64, FileId)>,
    drawn_by_end: BTreeSet<(u64, FileId)>,
    parts: HashMap<FileId, BTreeMap<u16, Part>>,
    parts_by_end: BTreeSet<(u64, FileId)>,
    /// Files that are being written.
    busy: HashSet<FileId>,
    /// When the last attempt at a part began.
    last_attempt_ms: u64,
}

impl Index {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            used: 0,
            yielding: 0,
            files: HashMap::new(),
            by_end: BTreeSet::new(),
            drawn_by_end: BTreeSet::new(),
            parts: HashMap::new(),
            parts_by_end: BTreeSet::new(),
            busy: HashSet::new(),
            last_attempt_ms: 0,
        }
    }

    /// A file and its size.
    pub(super) fn file(&self, id: FileId) -> Option<&(StoredName, u64)> {
        self.files.get(&id)
    }

    /// Bytes in use, those reserved included.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// Marks a file as being written, if it is not already.
    pub(super) fn begin(&mut self, id: FileId) -> bool {
        self.busy.insert(id)
    }

    /// The counterpart of [`Index::begin`].
    pub(super) fn end(&mut self, id: FileId) {
        self.busy.remove(&id);
    }

    /// When an attempt at a part begins that begins now: later than every other, also when the clock
    /// has not moved.
    pub(super) fn attempt_ms(&mut self, now_ms: u64) -> u64 {
        self.last_attempt_ms = now_ms.max(self.last_attempt_ms.saturating_add(1));
        self.last_attempt_ms
    }

    /// Takes room. Returns the paths of the files that had to give way.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<Vec<String>, FilesError> {
        let wanted = self.used.saturating_add(bytes);
        if wanted.saturating_sub(self.yielding) > self.max_bytes {
            return Err(FilesError::Full);
        }
        self.used = wanted;
        let mut given_way = Vec::new();
        while self.used > self.max_bytes {
            let Some((_, id)) = self.drawn_by_end.first().copied() else {
                break;
            };
            given_way.extend(self.remove_file(id));
        }
        Ok(given_way)
    }

    /// Gives room back.
    pub(super) fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Adds a file. Returns the path of the one that had its id, if that lies elsewhere.
    pub(super) fn insert_file(&mut self, name: StoredName, bytes: u64) -> Option<String> {
        let replaced = self.remove_file(name.id);
        let cost = bytes.saturating_add(OVERHEAD_BYTES);
        self.used = self.used.saturating_add(cost);
        self.by_end.insert((name.expires_ms, name.id));
        if name.origin == Origin::Drawn {
            self.yielding = self.yielding.saturating_add(cost);
            self.drawn_by_end.insert((name.expires_ms, name.id));
        }
        let path = file_path(&name);
        self.files.insert(name.id, (name, bytes));
        replaced.filter(|replaced| *replaced != path)
    }

    fn remove_file(&mut self, id: FileId) -> Option<String> {
        let (name, bytes) = self.files.remove(&id)?;
        let cost = bytes.saturating_add(OVERHEAD_BYTES);
        self.used = self.used.saturating_sub(cost);
        self.by_end.remove(&(name.expires_ms, id));
        if self.drawn_by_end.remove(&(name.expires_ms, id)) {
            self.yielding = self.yielding.saturating_sub(cost);
        }
        Some(file_path(&name))
    }

    /// Adds a part. Of several attempts the one that began last stays; returns the path of the other.
    pub(super) fn insert_part(&mut self, name: PartName, bytes: u64) -> Option<String> {
        let cost = bytes.saturating_add(OVERHEAD_BYTES);
        let parts = self.parts.entry(name.id).or_default();
        self.parts_by_end.insert((name.deadline_ms, name.id));
        let part = Part { name, bytes };
        let number = part.name.number;
        let lost = match parts.insert(number, part) {
            Some(before) => {
                let is_older = parts
                    .get(&number)
                    .is_some_and(|part| part.name.attempt < before.name.attempt);
                if is_older {
                    parts.insert(number, before)
                } else {
                    Some(before)
                }
            }
            None => None,
        };
        self.used = self.used.saturating_add(cost);
        lost.map(|part| {
            self.used = self
                .used
                .saturating_sub(part.bytes.saturating_add(OVERHEAD_BYTES));
            part_path(&part.name)
        })
    }

    /// The parts of an upload by their numbers.
    pub(super) fn parts(&self, id: FileId) -> impl Iterator<Item = &Part> {
        self.parts.get(&id).into_iter().flat_map(BTreeMap::values)
    }

    /// Forgets the parts of an upload. Returns their paths.
    pub(super) fn remove_parts(&mut self, id: FileId) -> Vec<String> {
        let parts = self.parts.remove(&id).unwrap_or_default();
        let mut paths = Vec::new();
        for part in parts.into_values() {
            self.used = self
                .used
                .saturating_sub(part.bytes.saturating_add(OVERHEAD_BYTES));
            self.parts_by_end.remove(&(part.name.deadline_ms, id));
            paths.push(part_path(&part.name));
        }
        paths
    }

    /// Forgets everything whose time is over. Returns the paths.
    pub(super) fn remove_expired(&mut self, now_ms: u64) -> Vec<String> {
        let mut paths = Vec::new();
        while let Some((_, id)) = self.by_end.first().copied().filter(|it| it.0 <= now_ms) {
            paths.extend(self.remove_file(id));
        }
        while let Some(first) = self.parts_by_end.first().copied() {
            if first.0 > now_ms {
                break;
            }
            self.parts_by_end.remove(&first);
            paths.extend(self.remove_parts(first.1));
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::super::media::MediaType;
    use super::super::name::Access;
    use super::*;

    fn file(origin: Origin, expires_ms: u64) -> StoredName {
        StoredName {
            id: FileId::random().unwrap(),
            expires_ms,
            origin,
            access: Access::Allow,
            unsynced_bytes: None,
            media: MediaType::Png,
            name: "a.png".into(),
        }
    }

    fn part(id: FileId, number: u16, began_ms: u64) -> PartName {
        PartName::new(id, 100, number, began_ms).unwrap()
    }

    #[test]
    fn paths_are_read_back() {
        let name = file(Origin::Drawn, 5);
        let listed = Listed::parse(&file_path(&name));
        assert!(matches!(listed, Some(Listed::File(it)) if it == name));
        let part = part(name.id, 7, 3);
        let listed = Listed::parse(&part_path(&part));
        assert!(matches!(listed, Some(Listed::Part(it)) if it == part));
        for path in [
            "key",
            "hosted/x",
            "parts/x",
            &format!("other/{name}"),
            &name.to_string(),
        ] {
            assert!(Listed::parse(path).is_none(), "{path}");
        }
    }

    #[test]
    fn room_ends_exactly_at_the_quota() {
        let mut index = Index::new(10);
        assert!(index.reserve(10).unwrap().is_empty());
        assert!(matches!(index.reserve(1), Err(FilesError::Full)));
        assert!(matches!(index.reserve(u64::MAX), Err(FilesError::Full)));
        index.release(4);
        assert!(index.reserve(4).is_ok());
        assert!(matches!(index.reserve(1), Err(FilesError::Full)));
    }

    #[test]
    fn drawn_pictures_give_way_in_the_order_of_their_ends_and_uploads_never() {
        let cost = OVERHEAD_BYTES + 100;
        let mut index = Index::new(4 * cost);
        let upload = file(Origin::Uploaded, 1);
        let (late, early) = (file(Origin::Drawn, 30), file(Origin::Drawn, 20));
        for name in [&upload, &late, &early] {
            assert!(index.insert_file(name.clone(), 100).is_none());
        }
        assert!(index.reserve(cost).unwrap().is_empty());
        assert_eq!(index.reserve(1).unwrap(), [file_path(&early)]);
        // Asking for more than could ever be freed costs nobody anything.
        assert!(matches!(index.reserve(3 * cost), Err(FilesError::Full)));
        assert!(index.file(late.id).is_some() && index.file(early.id).is_none());
        assert_eq!(index.reserve(2 * cost - 1).unwrap(), [file_path(&late)]);
        assert!(index.file(upload.id).is_some());
        assert_eq!(index.used(), 4 * cost);
    }

    #[test]
    fn everything_taken_comes_back() {
        let mut index = Index::new(1 << 20);
        let (first, second) = (file(Origin::Uploaded, 10), file(Origin::Drawn, 20));
        index.insert_file(first.clone(), 5);
        index.insert_file(second.clone(), 6);
        // The same file again, with another size and under another path.
        assert!(index.insert_file(first.clone(), 50).is_none());
        let moved = StoredName {
            expires_ms: 11,
            ..first.clone()
        };
        assert_eq!(index.insert_file(moved.clone(), 7), Some(file_path(&first)));
        index.insert_part(part(first.id, 1, 0), 8);
        index.insert_part(part(first.id, 2, 0), 9);
        assert_eq!(index.used(), 4 * OVERHEAD_BYTES + 6 + 7 + 8 + 9);
        assert!(index.remove_expired(10).is_empty());
        assert_eq!(index.remove_expired(11), [file_path(&moved)]);
        assert_eq!(index.remove_expired(99), [file_path(&second)]);
        assert_eq!(index.remove_expired(100).len(), 2);
        assert_eq!(index.used(), 0);
        assert_eq!(index.yielding, 0);
        assert!(index.by_end.is_empty() && index.parts_by_end.is_empty());
    }

    #[test]
    fn of_several_attempts_at_a_part_the_last_to_begin_stays() {
        let mut index = Index::new(1 << 20);
        let id = FileId::random().unwrap();
        let (first, second) = (part(id, 1, 50), part(id, 1, 60));
        assert_eq!(index.insert_part(second.clone(), 5), None);
        assert_eq!(index.insert_part(first.clone(), 4), Some(part_path(&first)));
        let third = part(id, 1, 70);
        assert_eq!(
            index.insert_part(third.clone(), 3),
            Some(part_path(&second))
        );
        let parts: Vec<_> = index.parts(id).map(|part| part.name.clone()).collect();
        assert_eq!(parts, [third]);
        assert_eq!(index.used(), OVERHEAD_BYTES + 3);
    }

    #[test]
    fn attempts_follow_one_another_whatever_the_clock_says() {
        let mut index = Index::new(1);
        let began = [50, 50, 40, 51, 60].map(|now_ms| index.attempt_ms(now_ms));
        assert!(began.is_sorted_by(|a, b| a < b), "{began:?}");
        assert_eq!(began[4], 60);
    }

    #[test]
    fn a_file_is_written_by_one_at_a_time() {
        let mut index = Index::new(1);
        let id = FileId::random().unwrap();
        assert!(index.begin(id) && !index.begin(id));
        index.end(id);
        assert!(index.begin(id));
    }
}
