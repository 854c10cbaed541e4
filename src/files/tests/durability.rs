//! Files that are not synced: found again after a restart when they are whole, and never served half.

use super::*;

/// Keeps a drawn picture of five bytes; gives the name of its object.
async fn drawn(fixture: &Fixture, durability: Durability) -> (String, std::path::PathBuf) {
    let store = fixture.open().await;
    let content = Bytes::from_static(b"drawn");
    let saved = store.save_drawn(&file("d.png"), content, durability).await;
    let [object] = fixture.objects("hosted").try_into().unwrap();
    let object = fixture.folder.path().join("hosted").join(object);
    (saved.unwrap().path, object)
}

#[tokio::test]
async fn an_unsynced_file_survives_a_restart_when_it_is_whole() {
    for durability in [Durability::Synced, Durability::Unsynced] {
        let fixture = Fixture::new();
        let (path, _) = drawn(&fixture, durability).await;
        let store = fixture.open().await;
        assert_eq!(read(&store, &path).await.unwrap(), b"drawn");
        assert_eq!(store.used_bytes(), OVERHEAD_BYTES + 5);
    }
}

#[tokio::test]
async fn what_a_power_cut_left_of_an_unsynced_file_is_deleted() {
    for rest in ["", "dra"] {
        let fixture = Fixture::new();
        let (path, object) = drawn(&fixture, Durability::Unsynced).await;
        std::fs::write(&object, rest).unwrap();
        let store = fixture.open().await;
        assert!(matches!(
            read(&store, &path).await,
            Err(FilesError::NotFound)
        ));
        assert_eq!(store.used_bytes(), 0);
        assert!(!object.exists());
    }
}
