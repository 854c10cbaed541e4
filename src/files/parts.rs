//! Files that arrive in parts: in any order, several at once, each as often as the client likes.
//!
//! A part is an object of its own until the file is put together, so an upload survives a restart.
//! Of several attempts at a part the one that began last counts. Putting together is refused unless
//! the parts that the caller lists are those that arrived, from the first on without a gap; done
//! once, doing it again changes nothing. Uploads that nobody finishes end with their ticket.

use futures_util::TryStreamExt;

use super::index::{Part, part_path};
use super::name::{PartName, StoredName};
use super::store::FileStore;
use super::ticket::Permission;
use super::upload::{Finished, Target, Upload};
use super::{FilesError, PublicFile};

/// Parts of one file. Ten gibibytes in the parts of ten mebibytes that clients send are a third.
pub const MAX_PARTS: u16 = 3000;

/// A part as the caller lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// Its number, from 1.
    pub number: u64,
    /// What the answer to it said.
    pub etag: String,
}

impl FileStore {
    /// Begins the upload of one part.
    ///
    /// # Errors
    /// [`FilesError::NotPermitted`], [`FilesError::PartNumber`], or when there is no room or no
    /// place.
    pub fn upload_part(&self, ticket: &str, number: u64) -> Result<Upload, FilesError> {
        let (name, deadline_ms) = self.permission_for_parts(ticket)?;
        let number = u16::try_from(number).ok();
        let number = number.filter(|number| (1..=MAX_PARTS).contains(number));
        let number = number.ok_or(FilesError::PartNumber)?;
        let place = self.place()?;
        let began_ms = self.index().attempt_ms(self.now_ms());
        let part = PartName::new(name.id, deadline_ms, number, began_ms)?;
        let settings = &self.inner.settings;
        let others: u64 = {
            let index = self.index();
            let others = index.parts(name.id).filter(|it| it.name.number != number);
            others.map(|part| part.bytes).sum()
        };
        let left = settings.max_multipart_bytes.saturating_sub(others);
        let upload = Upload::new(self, Target::Part(part), settings.max_file_bytes.min(left))?;
        Ok(upload.holding(None, Some(place)))
    }

    /// Puts a file together.
    ///
    /// Cancel-safe: until the last step nothing has happened, and the parts stay.
    ///
    /// # Errors
    /// [`FilesError::NotPermitted`], [`FilesError::Parts`], or when there is no room or the store
    /// fails.
    pub async fn complete(
        &self,
        ticket: &str,
        listed: &[ListedPart],
    ) -> Result<PublicFile, FilesError> {
        let (name, _) = self.permission_for_parts(ticket)?;
        let turn = self.turn(name.id)?;
        if let Some((done, bytes)) = self.index().file(name.id) {
            return Ok(PublicFile {
                path: done.public_path(),
                name: done.name.clone(),
                bytes: *bytes,
            });
        }
        let arrived: Vec<Part> = self.index().parts(name.id).cloned().collect();
        check(&arrived, listed)?;
        let id = name.id;
        let max_bytes = self.inner.settings.max_multipart_bytes;
        let upload = Upload::new(self, Target::File(name), max_bytes)?;
        let mut upload = upload.holding(Some(turn), Some(self.place()?));
        upload.expect(arrived.iter().map(|part| part.bytes).sum())?;
        for part in &arrived {
            let object = self.object(&part_path(&part.name)).await;
            // Replaced between the look at the list and now.
            let object = object.map_err(|error| match error {
                FilesError::NotFound => FilesError::Parts("a part was sent again".into()),
                other => other,
            })?;
            let mut chunks = object.into_stream();
            while let Some(chunk) = chunks.try_next().await? {
                upload.write(&chunk).await?;
            }
        }
        let finished = upload.finish().await?;
        let parts = self.index().remove_parts(id);
        self.delete_later(parts);
        match finished {
            Finished::File(file) => Ok(file),
            Finished::Part { .. } => Err(FilesError::Storage("a file became a part".into())),
        }
    }

    /// The file that a ticket permits to send in parts, and the end of the upload.
    pub(super) fn permission_for_parts(
        &self,
        ticket: &str,
    ) -> Result<(StoredName, u64), FilesError> {
        match self.permission(ticket)? {
            (Permission::Parts(name), deadline_ms) => Ok((name, deadline_ms)),
            _ => Err(FilesError::NotPermitted),
        }
    }

    /// Whether a ticket for parts is for the file at this address.
    #[must_use]
    pub fn is_ticket_for(&self, ticket: &str, id: &str, name: &str) -> bool {
        self.permission_for_parts(ticket)
            .is_ok_and(|(file, _)| file.id.to_string() == id && file.name == name)
    }
}

/// Whether the listed parts, in whatever order, are those that arrived, and these have no gap.
/// `arrived` is in the order of the numbers.
fn check(arrived: &[Part], listed: &[ListedPart]) -> Result<(), FilesError> {
    if arrived.is_empty() || arrived.len() != listed.len() {
        let (came, said) = (arrived.len(), listed.len());
        return Err(FilesError::Parts(format!("{came} arrived, {said} listed")));
    }
    let mut listed: Vec<&ListedPart> = listed.iter().collect();
    listed.sort_by_key(|part| part.number);
    for ((part, entry), number) in arrived.iter().zip(listed).zip(1_u64..) {
        if u64::from(part.name.number) != number || entry.number != number {
            return Err(FilesError::Parts(format!("part {number} is missing")));
        }
        if bare(&entry.etag) != part.name.attempt {
            return Err(FilesError::Parts(format!("part {number} is another one")));
        }
    }
    Ok(())
}

/// An entity tag without the quotation marks of the header.
fn bare(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}
