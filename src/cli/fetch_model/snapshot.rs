//! The snapshot of one hub repository at one revision: asks, compares with the cache, fetches.
//!
//! The order: the first question fixes the commit, all further ones are about that commit, so that
//! a push in between cannot mix two checkpoints. Weights are asked for in the order of preference
//! and taken once. Where the hub cannot be reached, something else answers in its place, or it refuses
//! us, and the revision is complete in the cache, the cache is used and one line says so. That the hub
//! no longer has a revision or file is an error even then.

use super::cache::RepoCache;
use super::digest::{self, is_hex};
use super::hub::{Answer, FileMeta, Hub};
use super::listing::{
    self, FolderFault, INDEX, IndexError, OPTIONAL, PICKLE, REQUIRED, SAFETENSORS,
};
use super::progress::Progress;
use super::settings::HubSettings;
use super::{CheckpointFolder, FetchModelError, VerifiedFile, download};

/// Longest revision that is passed on: branch and tag names are far shorter.
const MAX_REVISION_BYTES: usize = 200;

/// A repository at a revision, with its part of the cache.
pub(super) struct Repository {
    name: String,
    revision: String,
    cache: RepoCache,
    /// None offline: then nothing can be asked at all.
    hub: Option<Hub>,
}

/// A complete snapshot, and the etag of each of its files where it is known.
struct Snapshot {
    commit: String,
    folder: CheckpointFolder,
    etags: Vec<Option<String>>,
}

impl Repository {
    /// Reads the environment; contacts nobody.
    pub(super) fn new(name: &str, revision: &str, offline: bool) -> Result<Self, FetchModelError> {
        if !listing::is_relative_path(revision) || revision.len() > MAX_REVISION_BYTES {
            let shown = revision.chars().take(MAX_REVISION_BYTES).collect();
            return Err(FetchModelError::BadRevision(shown));
        }
        let settings = HubSettings::from_env()?;
        let cache = RepoCache::new(&settings.cache_dir, name);
        let hub = if offline {
            None
        } else {
            Some(Hub::new(settings, name)?)
        };
        Ok(Self {
            name: name.to_owned(),
            revision: revision.to_owned(),
            cache,
            hub,
        })
    }

    /// The complete snapshot; cached files are trusted by name and length.
    pub(super) fn resolve(&self, progress: &Progress) -> Result<CheckpointFolder, FetchModelError> {
        Ok(self.snapshot(progress)?.folder)
    }

    /// The complete snapshot with every file read and checked.
    pub(super) fn resolve_and_verify(
        &self,
        progress: &Progress,
    ) -> Result<(CheckpointFolder, Vec<VerifiedFile>), FetchModelError> {
        let snapshot = self.snapshot(progress)?;
        let (files, damaged) = verify(&snapshot)?;
        let Some(first) = damaged.first() else {
            return Ok((snapshot.folder, files));
        };
        if self.hub.is_none() {
            return Err(FetchModelError::CacheDamaged {
                path: snapshot.folder.path.join(first),
            });
        }
        for name in &damaged {
            progress.note(&format!(
                "{name}: the cached file does not match its checksum; it is fetched again"
            ));
            self.cache.discard(&snapshot.commit, name)?;
        }
        let snapshot = self.snapshot(progress)?;
        let (files, damaged) = verify(&snapshot)?;
        match damaged.first() {
            None => Ok((snapshot.folder, files)),
            Some(name) => Err(FetchModelError::CacheDamaged {
                path: snapshot.folder.path.join(name),
            }),
        }
    }

    fn snapshot(&self, progress: &Progress) -> Result<Snapshot, FetchModelError> {
        let cached = self.cached();
        let Some(hub) = &self.hub else { return cached };
        if cached.as_ref().is_ok_and(|cached| self.is_settled(cached)) {
            return cached;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(FetchModelError::io(
                "start the download runtime for",
                &self.name,
            ))?;
        match (runtime.block_on(self.online(hub, progress)), cached) {
            (Err(error), Ok(cached)) if error.leaves_the_cache_good() => {
                progress.note(&format!(
                    "warning: {error}; using the cached commit {}",
                    cached.commit
                ));
                Ok(cached)
            }
            (result, _) => result,
        }
    }

    /// A commit never changes: once all of it is cached, or known to be absent, nobody need be asked.
    fn is_settled(&self, cached: &Snapshot) -> bool {
        let has = |name: &str| cached.folder.files.iter().any(|file| file == name);
        is_hex(&self.revision, 40)
            && OPTIONAL
                .iter()
                .all(|name| has(name) || self.cache.is_known_absent(&cached.commit, name))
    }

    /// What the cache holds for this revision, if that is complete.
    fn cached(&self) -> Result<Snapshot, FetchModelError> {
        let missing = |file: String| FetchModelError::NotCached {
            repository: self.name.clone(),
            revision: self.revision.clone(),
            file,
            cache: self.cache.root().to_owned(),
        };
        let commit = self
            .cache
            .commit_of(&self.revision)
            .ok_or_else(|| missing("every file".to_owned()))?;
        let path = self.cache.snapshot(&commit);
        let files = listing::in_folder(&path).map_err(|fault| match fault {
            FolderFault::Missing(file) => missing(file),
            FolderFault::Index(fault) => self.bad_index(fault),
            FolderFault::Io(error) => FetchModelError::io("read", path.join(INDEX))(error),
        })?;
        let etags = files
            .iter()
            .map(|file| self.cache.linked_etag(&commit, file))
            .collect();
        Ok(Snapshot {
            commit,
            folder: CheckpointFolder { path, files },
            etags,
        })
    }

    async fn online(&self, hub: &Hub, progress: &Progress) -> Result<Snapshot, FetchModelError> {
        let [config, tokenizer] = REQUIRED;
        let config = match hub.ask(&self.revision, config).await? {
            Answer::Found(meta) => meta,
            Answer::Absent => return Err(self.absent(hub, config)),
        };
        let commit = config.commit.clone();
        let mut files = vec![config];
        files.push(self.need(hub, &commit, tokenizer, tokenizer).await?);
        for name in OPTIONAL {
            files.extend(self.find(hub, &commit, name).await?);
        }
        // The small files first: a checkpoint that is not one fails before its gigabytes come.
        for meta in &files {
            self.ensure(hub, meta, progress).await?;
        }
        let weights = self.weights(hub, &commit, progress).await?;
        for meta in &weights {
            self.ensure(hub, meta, progress).await?;
        }
        files.extend(weights);
        if let Err(error) = self.cache.remember(&self.revision, &commit) {
            progress.note(&format!(
                "warning: {error}; {} is not remembered",
                self.revision
            ));
        }
        let path = self.cache.snapshot(&commit);
        let (files, etags) = files
            .into_iter()
            .map(|meta| (meta.name, Some(meta.etag)))
            .unzip();
        Ok(Snapshot {
            commit,
            folder: CheckpointFolder { path, files },
            etags,
        })
    }

    /// The weights in the first form that the repository has, with the index where there is one.
    async fn weights(
        &self,
        hub: &Hub,
        commit: &str,
        progress: &Progress,
    ) -> Result<Vec<FileMeta>, FetchModelError> {
        if let Some(meta) = self.find(hub, commit, SAFETENSORS).await? {
            return Ok(vec![meta]);
        }
        let Some(index) = self.find(hub, commit, INDEX).await? else {
            let wanted = format!("{SAFETENSORS} (or {INDEX}, or {PICKLE})");
            return Ok(vec![self.need(hub, commit, PICKLE, &wanted).await?]);
        };
        if index.bytes > listing::MAX_INDEX_BYTES {
            return Err(self.bad_index(IndexError::TooLarge(index.bytes)));
        }
        self.ensure(hub, &index, progress).await?;
        let path = self.cache.snapshot(commit).join(INDEX);
        let bytes = listing::read_index(&path).map_err(FetchModelError::io("read", &path))?;
        let mut files = vec![index];
        for name in listing::shards(&bytes).map_err(|fault| self.bad_index(fault))? {
            files.push(self.need(hub, commit, &name, &name).await?);
        }
        Ok(files)
    }

    /// What `name` is at `commit`; none where the hub has no such file, which is remembered.
    async fn find(
        &self,
        hub: &Hub,
        commit: &str,
        name: &str,
    ) -> Result<Option<FileMeta>, FetchModelError> {
        match hub.ask(commit, name).await? {
            Answer::Found(meta) => Ok(Some(FileMeta {
                commit: commit.to_owned(),
                ..meta
            })),
            Answer::Absent => {
                self.cache.remember_absent(commit, name);
                Ok(None)
            }
        }
    }

    /// As [`Self::find`], where the absence is an error about `wanted`.
    async fn need(
        &self,
        hub: &Hub,
        commit: &str,
        name: &str,
        wanted: &str,
    ) -> Result<FileMeta, FetchModelError> {
        self.find(hub, commit, name)
            .await?
            .ok_or_else(|| self.absent(hub, wanted))
    }

    /// Makes the snapshot's file be there, with the least work that suffices.
    async fn ensure(
        &self,
        hub: &Hub,
        meta: &FileMeta,
        progress: &Progress,
    ) -> Result<(), FetchModelError> {
        if self.is_there(meta) {
            return Ok(());
        }
        let blob = self.cache.blob(&meta.etag);
        if !blob.metadata().is_ok_and(|found| found.len() == meta.bytes) {
            let is_there = || self.is_there(meta);
            download::fetch(hub, &self.cache, meta, progress, &is_there).await?;
        }
        if self.is_there(meta) {
            return Ok(());
        }
        self.cache.link(&meta.commit, &meta.name, &meta.etag)
    }

    /// Whether the snapshot has the file, by name and length.
    fn is_there(&self, meta: &FileMeta) -> bool {
        let linked = self.cache.linked_etag(&meta.commit, &meta.name);
        let file = self.cache.snapshot(&meta.commit).join(&meta.name);
        linked.is_none_or(|etag| etag == meta.etag)
            && file.metadata().is_ok_and(|found| found.len() == meta.bytes)
    }

    fn absent(&self, hub: &Hub, file: &str) -> FetchModelError {
        FetchModelError::FileAbsent {
            endpoint: hub.endpoint(),
            repository: self.name.clone(),
            revision: self.revision.clone(),
            file: file.to_owned(),
        }
    }

    fn bad_index(&self, fault: IndexError) -> FetchModelError {
        FetchModelError::BadIndex {
            model: self.name.clone(),
            fault,
        }
    }
}

/// Reads every file of a snapshot: what each holds, and the names of those that are damaged.
fn verify(snapshot: &Snapshot) -> Result<(Vec<VerifiedFile>, Vec<String>), FetchModelError> {
    let (mut files, mut damaged) = (Vec::new(), Vec::new());
    for (name, etag) in snapshot.folder.files.iter().zip(&snapshot.etags) {
        let path = snapshot.folder.path.join(name);
        let found =
            digest::check(&path, etag.as_deref()).map_err(FetchModelError::io("read", &path))?;
        if !found.as_promised {
            damaged.push(name.clone());
        }
        files.push(VerifiedFile {
            name: name.clone(),
            bytes: found.bytes,
            sha256: found.sha256,
        });
    }
    Ok((files, damaged))
}
