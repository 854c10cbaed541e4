//! The store as a whole, on a directory that vanishes and with a clock that a test moves.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::index::OVERHEAD_BYTES;
use super::*;
use crate::config::FilesSettings;
use crate::image_io::{OwnFiles, PictureError};

mod durability;

struct Fixture {
    folder: tempfile::TempDir,
    settings: FilesSettings,
    now_ms: Arc<AtomicU64>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            settings: FilesSettings::default(),
            now_ms: Arc::new(AtomicU64::new(1_000_000)),
        }
    }

    async fn open(&self) -> FileStore {
        let now_ms = Arc::clone(&self.now_ms);
        let clock: Clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        FileStore::open(self.folder.path(), self.settings, clock)
            .await
            .unwrap()
    }

    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Names of the objects in a folder of the store, half written ones included.
    fn objects(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join(folder)).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// Waits until a folder of the store is empty: some deletions happen beside the call.
    async fn wait_until_empty(&self, folder: &str) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !self.objects(folder).is_empty() {
            assert!(std::time::Instant::now() < deadline, "{folder} stays full");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn file(name: &str) -> NewFile<'_> {
    NewFile {
        name,
        content_type: None,
        lifecycle: Lifecycle::default(),
    }
}

fn for_a_minute(name: &str) -> NewFile<'_> {
    NewFile {
        lifecycle: Lifecycle {
            lifetime: Some(Duration::from_secs(60)),
            access: Access::Allow,
        },
        ..file(name)
    }
}

async fn upload(store: &FileStore, file: &NewFile<'_>, content: &[u8]) -> String {
    let mut upload = store.upload(file).unwrap();
    upload.write(content).await.unwrap();
    match upload.finish().await.unwrap() {
        Finished::File(file) => file.path,
        Finished::Part { .. } => panic!("a file became a part"),
    }
}

async fn send_part(store: &FileStore, ticket: &str, number: u64, content: &[u8]) -> ListedPart {
    let mut upload = store.upload_part(ticket, number).unwrap();
    upload.write(content).await.unwrap();
    match upload.finish().await.unwrap() {
        Finished::Part { etag } => ListedPart { number, etag },
        Finished::File(_) => panic!("a part became a file"),
    }
}

async fn read(store: &FileStore, path: &str) -> Result<Vec<u8>, FilesError> {
    let mut segments = path.split('/').skip(2);
    let (id, name) = (segments.next().unwrap(), segments.next().unwrap());
    let found = store.get(id, name).await?;
    let chunks: Vec<Bytes> = found.chunks.try_collect().await?;
    Ok(chunks.concat())
}

#[tokio::test]
async fn files_tickets_and_parts_outlive_a_restart() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let path = upload(&store, &file("a.png"), b"hello").await;
    let whole = store.offer(&file("b.png"), UploadKind::Whole).unwrap();
    let parts = store.offer(&file("c.png"), UploadKind::Parts).unwrap();
    let second = send_part(&store, &parts.ticket, 2, b"world").await;
    let (token, _) = store.token();
    let used = store.used_bytes();
    drop(store);

    let store = fixture.open().await;
    assert_eq!(store.used_bytes(), used);
    assert_eq!(read(&store, &path).await.unwrap(), b"hello");
    assert!(store.accepts(&token));
    assert!(store.upload_with_ticket(&whole.ticket).is_ok());
    let first = send_part(&store, &parts.ticket, 1, b"hello ").await;
    let done = store
        .complete(&parts.ticket, &[second, first])
        .await
        .unwrap();
    assert_eq!((done.path.as_str(), done.bytes), (parts.path.as_str(), 11));
    assert_eq!(read(&store, &parts.path).await.unwrap(), b"hello world");
    fixture.wait_until_empty("parts").await;
    assert_eq!(store.used_bytes(), 2 * OVERHEAD_BYTES + 5 + 11);
}

#[tokio::test]
async fn what_a_crash_leaves_half_written_is_removed_and_was_never_a_file() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let path = upload(&store, &file("a.png"), b"hello").await;
    let begun = store.offer(&file("b.png"), UploadKind::Whole).unwrap();
    let mut half = store.upload_with_ticket(&begun.ticket).unwrap();
    half.write(&vec![7; 6 << 20]).await.unwrap();
    assert_eq!(fixture.objects("hosted").len(), 2);
    assert!(matches!(
        read(&store, &begun.path).await,
        Err(FilesError::NotFound)
    ));
    // As a killed process: nothing is dropped.
    std::mem::forget(half);

    let store = fixture.open().await;
    assert_eq!(fixture.objects("hosted").len(), 1);
    assert_eq!(store.used_bytes(), OVERHEAD_BYTES + 5);
    assert!(matches!(
        read(&store, &begun.path).await,
        Err(FilesError::NotFound)
    ));
    assert_eq!(read(&store, &path).await.unwrap(), b"hello");
    assert!(store.upload_with_ticket(&begun.ticket).is_ok());
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let mut half = store.upload(&file("b.png")).unwrap();
    half.write(&vec![7; 6 << 20]).await.unwrap();
    assert!(store.used_bytes() > 6 << 20);
    drop(half);
    assert_eq!(store.used_bytes(), 0);
    fixture.wait_until_empty("hosted").await;
}

#[tokio::test]
async fn large_files_arrive_in_blocks_and_small_ones_in_one() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for size in [0, 1, (5 << 20) - 1, 5 << 20, (10 << 20) + 1] {
        let content: Vec<u8> = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let mut upload = store.upload(&file("a.bin")).unwrap();
        for chunk in content.chunks(70_001) {
            upload.write(chunk).await.unwrap();
        }
        let Finished::File(done) = upload.finish().await.unwrap() else {
            panic!("a file became a part");
        };
        assert_eq!(done.bytes, size as u64);
        assert!(
            read(&store, &done.path).await.unwrap() == content,
            "{size} bytes"
        );
    }
}

#[tokio::test]
async fn a_file_ends_with_its_time_and_then_its_bytes_go() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let short = upload(&store, &for_a_minute("a.png"), b"short").await;
    let long = upload(&store, &file("a.png"), b"long").await;
    let parts = store.offer(&file("c.png"), UploadKind::Parts).unwrap();
    send_part(&store, &parts.ticket, 1, b"never finished").await;
    fixture.pass(Duration::from_millis(59_999));
    store.sweep().await;
    assert_eq!(read(&store, &short).await.unwrap(), b"short");
    fixture.pass(Duration::from_millis(1));
    assert!(matches!(
        read(&store, &short).await,
        Err(FilesError::NotFound)
    ));
    assert_eq!(fixture.objects("hosted").len(), 2);
    store.sweep().await;
    assert_eq!(fixture.objects("hosted").len(), 1);
    fixture.pass(Duration::from_secs(3 * 3600));
    store.sweep().await;
    assert!(fixture.objects("parts").is_empty());
    assert_eq!(read(&store, &long).await.unwrap(), b"long");
    fixture.pass(Duration::from_secs(7 * 86_400));
    drop(store);
    // What expired while nobody looked is gone after the next start.
    let store = fixture.open().await;
    assert!(fixture.objects("hosted").is_empty());
    assert_eq!(store.used_bytes(), 0);
}

#[tokio::test]
async fn nobody_gets_a_longer_life_than_the_server_gives() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let mut forever = file("a.png");
    forever.lifecycle.lifetime = Some(Duration::from_secs(86_400 * 365));
    let path = upload(&store, &forever, b"x").await;
    fixture.pass(Duration::from_secs(7 * 86_400 - 1));
    assert!(read(&store, &path).await.is_ok());
    fixture.pass(Duration::from_secs(1));
    assert!(read(&store, &path).await.is_err());
}

#[tokio::test]
async fn old_drawn_pictures_give_way_to_new_files() {
    let mut fixture = Fixture::new();
    fixture.settings.max_files_bytes = 3 * (OVERHEAD_BYTES + 100);
    let store = fixture.open().await;
    let content = Bytes::from(vec![7; 100]);
    let mut drawn = Vec::new();
    for _ in 0..4 {
        let saved = store
            .save_drawn(&file("d.png"), content.clone(), Durability::Synced)
            .await;
        drawn.push(saved.unwrap().path);
        fixture.pass(Duration::from_secs(1));
    }
    assert!(read(&store, &drawn[0]).await.is_err());
    assert!(read(&store, &drawn[1]).await.is_ok());
    let uploaded = upload(&store, &file("u.png"), &content).await;
    assert!(read(&store, &drawn[1]).await.is_err());
    for _ in 0..2 {
        upload(&store, &file("u.png"), &content).await;
    }
    assert!(read(&store, &uploaded).await.is_ok());
    let refused = store
        .save_drawn(&file("d.png"), content, Durability::Synced)
        .await;
    assert!(matches!(refused, Err(FilesError::Full)));
    assert!(matches!(
        store.upload(&file("u.png")),
        Err(FilesError::Full)
    ));
}

#[tokio::test]
async fn a_second_writer_waits_for_its_turn_and_then_replaces() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let offer = store.offer(&file("a.png"), UploadKind::Whole).unwrap();
    let mut first = store.upload_with_ticket(&offer.ticket).unwrap();
    let second = store.upload_with_ticket(&offer.ticket);
    assert!(matches!(second, Err(FilesError::InUse)));
    first.write(b"first, and longer").await.unwrap();
    first.finish().await.unwrap();
    let mut second = store.upload_with_ticket(&offer.ticket).unwrap();
    second.write(b"second").await.unwrap();
    second.finish().await.unwrap();
    assert_eq!(read(&store, &offer.path).await.unwrap(), b"second");
    assert_eq!(store.used_bytes(), OVERHEAD_BYTES + 6);
}

#[tokio::test]
async fn own_files_are_read_up_to_the_picture_limit() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let path = upload(&store, &file("a.png"), b"hello").await;
    let id = path.split('/').nth(2).unwrap();
    assert_eq!(
        OwnFiles::read(&store, id, "a.png", 5).await.unwrap(),
        "hello"
    );
    let cut = OwnFiles::read(&store, id, "a.png", 4).await;
    assert!(matches!(
        cut,
        Err(PictureError::FileTooLarge { max_bytes: 4 })
    ));
    for (id, name) in [(id, "b.png"), (id, ""), (&id[1..], "a.png"), ("", "")] {
        let missing = OwnFiles::read(&store, id, name, 5).await;
        assert!(
            matches!(missing, Err(PictureError::Download(_))),
            "{id} {name}"
        );
    }
    // The object vanished under the server.
    for name in fixture.objects("hosted") {
        std::fs::remove_file(fixture.folder.path().join("hosted").join(name)).unwrap();
    }
    let missing = OwnFiles::read(&store, id, "a.png", 5).await;
    assert!(matches!(missing, Err(PictureError::Download(_))));
}

#[cfg(unix)]
#[tokio::test]
async fn other_users_of_the_machine_see_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    let folder = fixture.folder.path().join("files");
    FileStore::open(&folder, fixture.settings, system_clock())
        .await
        .unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("hosted")), 0o700);
}

#[tokio::test]
async fn a_broken_key_is_named_and_foreign_files_stay() {
    let fixture = Fixture::new();
    drop(fixture.open().await);
    let stranger = fixture.folder.path().join("hosted").join("notes.txt");
    std::fs::write(&stranger, "mine").unwrap();
    drop(fixture.open().await);
    assert!(stranger.exists());
    std::fs::write(fixture.folder.path().join("key"), "short").unwrap();
    let opened = FileStore::open(fixture.folder.path(), fixture.settings, system_clock()).await;
    let text = opened.unwrap_err().to_string();
    assert!(text.contains("key is not a key"), "{text}");
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    let failed = |error: std::io::Error| {
        FilesError::from(object_store::Error::Generic {
            store: "disk",
            source: Box::new(error),
        })
    };
    let failure = |kind: std::io::ErrorKind| failed(kind.into());
    if cfg!(unix) {
        let no_handle = failed(std::io::Error::from_raw_os_error(24));
        assert!(matches!(no_handle, FilesError::TooManyUploads));
    }
    for kind in [
        std::io::ErrorKind::StorageFull,
        std::io::ErrorKind::QuotaExceeded,
    ] {
        assert!(matches!(failure(kind), FilesError::DiskFull(_)), "{kind}");
    }
    let broken = failure(std::io::ErrorKind::PermissionDenied);
    assert!(matches!(broken, FilesError::Storage(_)));
}

#[tokio::test]
async fn what_cannot_be_deleted_is_deleted_later() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let lifecycle = Lifecycle {
        lifetime: Some(Duration::from_secs(60)),
        ..Lifecycle::default()
    };
    let new = NewFile {
        lifecycle,
        ..file("a.png")
    };
    store
        .save_drawn(&new, Bytes::from_static(b"x"), Durability::Synced)
        .await
        .unwrap();
    let [name] = fixture.objects("hosted").try_into().unwrap();
    // A folder in its place cannot be deleted as a file, whoever tries.
    let path = fixture.folder.path().join("hosted").join(name);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    fixture.pass(Duration::from_secs(61));
    store.sweep().await;
    assert_eq!(store.used_bytes(), 0);
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "x").unwrap();
    store.sweep().await;
    assert!(fixture.objects("hosted").is_empty());
}
