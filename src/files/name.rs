//! What a hosted file is called, inside and outside, and what its name says about it.
//!
//! Everything that must be known about a file stands in its name in the store,
//! `{id}.{expires}.{origin}{access}{length}-{media type}.{file name}`, and its size in the listing. So
//! one listing after a restart knows all files, and there is no second record that could contradict the
//! first. The length stands there for files that were not synced, and is how one that a power cut cut
//! short is known. The file names in it are made of few characters, whatever callers send: they end up in
//! paths, headers and pages.

use std::fmt;

use super::FilesError;
use super::media::MediaType;

/// Characters of a file name that are kept.
const MAX_NAME: usize = 100;
/// Characters of a file name's ending that survive when the rest is cut.
const MAX_ENDING: usize = 16;
/// What a file is called when nothing is left of its name.
const NAMELESS: &str = "file";

/// The unguessable part of a file's address: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u128);

impl FileId {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self, FilesError> {
        Ok(Self(u128::from_be_bytes(random()?)))
    }

    /// Reads exactly 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Random bytes from the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], FilesError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| FilesError::Storage("the system has no randomness".into()))?;
    Ok(bytes)
}

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A caller sent it.
    Uploaded,
    /// This server drew it. It can be had again, so it gives way when there is no room.
    Drawn,
}

/// Who may fetch a file, as fal's lifecycle headers put it. Users are not told apart here: whoever
/// has a key of this server is one of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everybody who knows the address.
    #[default]
    Allow,
    /// Only with a key; without one it is as if there were no file.
    Hide,
    /// Only with a key.
    Forbid,
}

/// A file's name in the store, see the module's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredName {
    pub(super) id: FileId,
    /// End of its life, in milliseconds since the epoch.
    pub(super) expires_ms: u64,
    pub(super) origin: Origin,
    pub(super) access: Access,
    /// Bytes, of a file that was not synced.
    pub(super) unsynced_bytes: Option<u64>,
    pub(super) media: MediaType,
    /// Made by [`safe_name`].
    pub(super) name: String,
}

impl StoredName {
    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '.');
        let id = FileId::parse(parts.next()?)?;
        let expires_ms = parts.next()?.parse().ok()?;
        let (marks, code) = parts.next()?.split_once('-')?;
        let (marks, length) = marks.split_at_checked(2)?;
        let unsynced_bytes = match length {
            "" => None,
            digits => Some(
                digits
                    .parse::<u64>()
                    .ok()
                    .filter(|it| it.to_string() == digits)?,
            ),
        };
        let (origin, access) = match marks {
            "ua" => (Origin::Uploaded, Access::Allow),
            "uh" => (Origin::Uploaded, Access::Hide),
            "uf" => (Origin::Uploaded, Access::Forbid),
            "da" => (Origin::Drawn, Access::Allow),
            "dh" => (Origin::Drawn, Access::Hide),
            "df" => (Origin::Drawn, Access::Forbid),
            _ => return None,
        };
        let media = MediaType::ALL.into_iter().find(|it| it.code() == code)?;
        let name = parts.next()?.to_owned();
        is_safe(&name).then_some(Self {
            id,
            expires_ms,
            origin,
            access,
            unsynced_bytes,
            media,
            name,
        })
    }

    /// Whether an object of this size is only what a power cut left of the file.
    pub(super) fn is_cut_at(&self, bytes: u64) -> bool {
        self.unsynced_bytes.is_some_and(|whole| whole != bytes)
    }

    /// Path of the public address.
    pub(super) fn public_path(&self) -> String {
        format!("/files/{}/{}", self.id, self.name)
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match self.origin {
            Origin::Uploaded => 'u',
            Origin::Drawn => 'd',
        };
        let access = match self.access {
            Access::Allow => 'a',
            Access::Hide => 'h',
            Access::Forbid => 'f',
        };
        let (id, expires, media) = (self.id, self.expires_ms, self.media.code());
        write!(f, "{id}.{expires}.{origin}{access}")?;
        if let Some(bytes) = self.unsynced_bytes {
            write!(f, "{bytes}")?;
        }
        write!(f, "-{media}.{}", self.name)
    }
}

/// The name of one attempt at sending one part of a file: `{id}.{deadline}.{number}.{attempt}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    /// The file's.
    pub(super) id: FileId,
    /// End of the upload, in milliseconds since the epoch.
    pub(super) deadline_ms: u64,
    pub(super) number: u16,
    /// When the attempt began, then random digits: later attempts are greater. It is the part's
    /// entity tag, too.
    pub(super) attempt: String,
}

impl PartName {
    /// A fresh attempt.
    pub(super) fn new(
        id: FileId,
        deadline_ms: u64,
        number: u16,
        began_ms: u64,
    ) -> Result<Self, FilesError> {
        let random = u64::from_be_bytes(random()?);
        Ok(Self {
            id,
            deadline_ms,
            number,
            attempt: format!("{began_ms:016x}{random:016x}"),
        })
    }

    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let name = Self {
            id: FileId::parse(parts.next()?)?,
            deadline_ms: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
            attempt: FileId::parse(parts.next()?)?.to_string(),
        };
        parts.next().is_none().then_some(name)
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, deadline, number) = (self.id, self.deadline_ms, self.number);
        write!(f, "{id}.{deadline}.{number}.{}", self.attempt)
    }
}

/// The name of a file that a caller calls `given`, or nothing at all.
pub(super) fn name_for(given: &str, media: MediaType) -> String {
    match (given, media) {
        ("", MediaType::Other) => NAMELESS.to_owned(),
        ("", picture) => format!("{NAMELESS}.{}", picture.code()),
        _ => safe_name(given),
    }
}

/// Whether a name is one that [`safe_name`] could have made.
fn is_safe(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(is_kept)
        && !name.starts_with('.')
        && !name.ends_with('.')
}

fn is_kept(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_')
}

/// A file name of letters, digits, dots, hyphens and underscores that neither begins nor ends with
/// a dot. Folders are dropped, everything else becomes an underscore, long names lose their middle.
fn safe_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name = String::new();
    for character in last.chars() {
        if is_kept(character) {
            name.push(character);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    let (stem, ending) = match name.rsplit_once('.') {
        Some((stem, ending)) if (1..=MAX_ENDING).contains(&ending.len()) => (stem, ending),
        _ => (name.as_str(), ""),
    };
    let ending = ending.trim_matches('_');
    let room = MAX_NAME - ending.len() - 1;
    let stem = stem.trim_matches(['.', '_']);
    let stem = stem
        .get(..room)
        .unwrap_or(stem)
        .trim_end_matches(['.', '_']);
    let stem = if stem.is_empty() { NAMELESS } else { stem };
    if ending.is_empty() {
        stem.to_owned()
    } else {
        format!("{stem}.{ending}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_and_read_in_one_spelling_only() {
        let id = FileId::random().unwrap();
        assert_eq!(FileId::parse(&id.to_string()), Some(id));
        assert_ne!(FileId::random().unwrap(), id);
        let digits = "0123456789abcdef0123456789abcdef";
        assert!(FileId::parse(digits).is_some());
        for text in [
            "",
            &digits[1..],
            &digits.to_uppercase(),
            "+123456789abcdef0123456789abcdef",
        ] {
            assert_eq!(FileId::parse(text), None, "{text}");
        }
        assert_eq!(FileId::parse(&format!("{digits}0")), None);
    }

    #[test]
    fn names_keep_what_is_harmless_in_a_path_and_a_header() {
        for (given, expected) in [
            ("cat.png", "cat.png"),
            ("My cat (2).JPG", "My_cat_2.JPG"),
            ("../../etc/passwd", "passwd"),
            ("C:\\pictures\\cat.png", "cat.png"),
            ("/", "file"),
            ("..", "file"),
            ("", "file"),
            (".htaccess", "file.htaccess"),
            ("a\r\nX: y\0\".png", "a_X_y.png"),
            ("图片.png", "file.png"),
            ("über.png", "ber.png"),
            ("a#1", "a_1"),
            ("a%2e%2e%2fb", "a_2e_2e_2fb"),
            ("a.", "a"),
            ("a.\u{202e}gnp", "a.gnp"),
        ] {
            assert_eq!(safe_name(given), expected, "{given:?}");
        }
        assert_eq!(name_for("", MediaType::Jpeg), "file.jpeg");
        assert_eq!(name_for("", MediaType::Other), "file");
        assert_eq!(name_for("a/b c", MediaType::Png), "b_c");
        for long in [
            format!("{}.jpeg", "x".repeat(1000)),
            format!("a.{}", "b".repeat(1000)),
            format!("{}_.{}", "x".repeat(80), "b".repeat(1000)),
            format!("{}.jpg", "._".repeat(500)),
            "é".repeat(1000),
        ] {
            assert!(is_safe(&safe_name(&long)), "{long}");
        }
        let long = safe_name(&format!("{}.jpeg", "x".repeat(1000)));
        assert!(long.len() == MAX_NAME && long.ends_with("x.jpeg"), "{long}");
    }

    #[test]
    fn stored_names_say_everything_about_a_file() {
        for origin in [Origin::Uploaded, Origin::Drawn] {
            for access in [Access::Allow, Access::Hide, Access::Forbid] {
                for (media, unsynced_bytes) in MediaType::ALL
                    .into_iter()
                    .zip([None, Some(0), Some(48_211)].into_iter().cycle())
                {
                    let name = StoredName {
                        id: FileId::random().unwrap(),
                        expires_ms: 1_795_000_000_123,
                        origin,
                        access,
                        unsynced_bytes,
                        media,
                        name: "a.b-c.png".into(),
                    };
                    assert_eq!(StoredName::parse(&name.to_string()), Some(name));
                }
            }
        }
        let id = "0123456789abcdef0123456789abcdef";
        for text in [
            String::new(),
            format!("{id}.5.ua-png"),
            format!("{id}.5.ua-png."),
            format!("{id}.5.ua-png.a/b"),
            format!("{id}.5.ua-png..a"),
            format!("{id}.-5.ua-png.a"),
            format!("{id}.5.xa-png.a"),
            format!("{id}.5.d-png.a"),
            format!("{id}.5.da05-png.a"),
            format!("{id}.5.da+5-png.a"),
            format!("{id}.5.ua-html.a"),
            format!("{}.5.ua-png.a", &id[1..]),
        ] {
            assert_eq!(StoredName::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn later_attempts_at_a_part_are_greater() {
        let id = FileId::random().unwrap();
        let attempt = |now_ms| PartName::new(id, 9, 3, now_ms).unwrap();
        let (first, second) = (attempt(9_999), attempt(10_000));
        assert!(second.attempt > first.attempt);
        assert_eq!(PartName::parse(&first.to_string()), Some(first.clone()));
        for text in [
            format!("{first}.x"),
            format!("{id}.9.70000.{id}"),
            format!("{id}.9.3"),
        ] {
            assert_eq!(PartName::parse(&text), None, "{text}");
        }
    }
}
