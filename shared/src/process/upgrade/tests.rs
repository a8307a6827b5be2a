//! The protocol, on real sockets and with real processes.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::*;
use crate::process::open_files;

/// The socket that a predecessor in another process connects to.
const HELPER_SOCKET: &str = "SQ_TEST_UPGRADE_SOCKET";

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("upgrade");
    (folder, path)
}

async fn wait_for(path: &Path) -> Result<(String, Vec<OwnedFd>, Predecessor), AcceptError> {
    wait_for_offer(path).await
}

async fn offer(path: &Path) -> Result<u32, OfferError> {
    find_successor(path).await?.offer(&"payload", &[]).await
}

/// A connection to a successor over which the test itself speaks.
async fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(_) => sleep(RETRY_INTERVAL).await,
        }
    }
}

#[tokio::test]
async fn more_descriptors_than_one_call_takes_come_in_order_with_a_long_payload_and_a_reply() {
    open_files::raise_limit();
    let (_folder, path) = folder();
    let pipes: Vec<_> = (0..2 * 253 + 1).map(|_| io::pipe().unwrap().0).collect();
    let payload = "x".repeat(1 << 20);
    let offering = async {
        let descriptors: Vec<_> = pipes.iter().map(AsFd::as_fd).collect();
        find_successor(&path).await.unwrap().offer::<u32>(&payload, &descriptors).await
    };
    let accepting = async {
        let (received, descriptors, predecessor) = wait_for(&path).await.unwrap();
        assert!(!path.exists(), "the socket file is still there");
        predecessor.accept(&7).await.unwrap();
        (received, descriptors)
    };
    let (reply, (received, descriptors)) = tokio::join!(offering, accepting);
    assert_eq!(reply.unwrap(), 7);
    assert!(received == payload);
    let inode = |descriptor: BorrowedFd<'_>| rustix::fs::fstat(descriptor).unwrap().st_ino;
    let inodes: Vec<_> = descriptors.iter().map(|descriptor| inode(descriptor.as_fd())).collect();
    assert_eq!(inodes, pipes.iter().map(|pipe| inode(pipe.as_fd())).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_successor_that_exits_before_it_accepts_leaves_the_sockets_where_they_are() {
    let (_folder, path) = folder();
    let (offered, _) = tokio::join!(offer(&path), async { drop(wait_for(&path).await.unwrap()) });
    assert!(matches!(offered, Err(OfferError::NotAccepted(_))), "{offered:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_successor_or_an_offer_the_wait_ends() {
    let (_folder, path) = folder();
    let offered = offer(&path).await;
    assert!(matches!(offered, Err(OfferError::NoSuccessor(..))), "{offered:?}");
    assert!(matches!(wait_for(&path).await, Err(AcceptError::NoOffer)));
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_accepts_too_late_is_told_to_exit() {
    let (_folder, path) = folder();
    let (wait, accept) = tokio::join!(offer(&path), async {
        let (_, _, predecessor) = wait_for(&path).await.unwrap();
        sleep(2 * WAIT_FOR_MESSAGE).await;
        predecessor.accept(&7).await
    });
    assert!(matches!(wait, Err(OfferError::NotAccepted(_))), "{wait:?}");
    let error = accept.unwrap_err().to_string();
    assert!(error.contains("keeps its sockets") && error.contains("its log says why"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_too_late_fails_at_the_predecessor() {
    let (_folder, path) = folder();
    let (mut connection, accepted) = tokio::join!(
        async {
            let connection = Connection::new(connect(&path).await);
            connection.send(&Offer { version: VERSION, descriptors: 0, payload: "" }, &[]).await.unwrap();
            connection
        },
        async { wait_for(&path).await.unwrap().2.accept(&()).await }
    );
    assert!(matches!(accepted, Err(AcceptError::Aborted(_))), "{accepted:?}");
    assert_eq!(connection.receive().await.unwrap().0, b"null\n");
    connection.send(&Decision::Commit, &[]).await.unwrap_err();
}

#[tokio::test]
async fn an_offer_with_too_few_descriptors_is_refused() {
    let (_folder, path) = folder();
    let (offered, ()) = tokio::join!(wait_for(&path), async {
        let connection = Connection::new(connect(&path).await);
        let file = File::open("/dev/null").unwrap();
        connection
            .send(&Offer { version: VERSION, descriptors: 2, payload: "" }, &[file.as_fd()])
            .await
            .unwrap();
    });
    let error = offered.unwrap_err().to_string();
    assert!(error.contains("1 of its 2 descriptors arrived"), "{error}");
}

#[tokio::test]
async fn an_offer_and_its_abort_may_wait_together() {
    let (_folder, path) = folder();
    let talking = async {
        let connection = Connection::new(connect(&path).await);
        let file = File::open("/dev/null").unwrap();
        connection
            .send(&Offer { version: VERSION, descriptors: 1, payload: "" }, &[file.as_fd()])
            .await
            .unwrap();
        connection.send(&Decision::Abort, &[]).await.unwrap();
    };
    let (accepted, ()) = tokio::join!(
        async {
            let (_, descriptors, predecessor) = wait_for(&path).await.unwrap();
            assert_eq!(descriptors.len(), 1);
            predecessor.accept(&()).await
        },
        talking
    );
    assert!(matches!(accepted, Err(AcceptError::Aborted(_))), "{accepted:?}");
}

/// The gateway's messages before this protocol, and the pool's.
#[tokio::test]
async fn an_offer_of_another_version_is_refused_with_what_to_do() {
    for (offer, why) in [
        (&b"{\"version\":1,\"sockets\":[]}\n"[..], "upgrade protocol is 1, not 2"),
        (b"SS\n[]\n", "has no version"),
        (b"{\"version\":2,\"payload\":5}\n", "expected a string"),
    ] {
        let (_folder, path) = folder();
        let (waited, _) = tokio::join!(wait_for(&path), async {
            let stream = connect(&path).await;
            stream.writable().await.unwrap();
            stream.try_write(offer).unwrap();
            stream
        });
        let error = waited.expect_err("it was taken").to_string();
        assert!(error.contains(why) && error.contains("Restart instead"), "{error}");
    }
}

#[tokio::test]
async fn a_connection_without_an_offer_does_not_end_the_wait() {
    let (_folder, path) = folder();
    let (waited, offered) =
        tokio::join!(async { wait_for(&path).await.unwrap().2.accept(&7).await }, async {
            drop(connect(&path).await);
            offer(&path).await
        });
    waited.unwrap();
    assert_eq!(offered.unwrap(), 7);
}

#[tokio::test]
async fn the_socket_file_is_its_owners_and_another_process_s_is_left_alone() {
    let (folder, path) = folder();
    let first = UpgradeSocket::bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = wait_for(&path).await.expect_err("two wait at one path").to_string();
    assert!(error.contains("another process with --upgrade waits there"), "{error}");
    drop(first);
    assert!(!path.exists());

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let second = UpgradeSocket::bind(&path).unwrap();
    let other = folder.path().join("other");
    fs::write(&other, "").unwrap();
    fs::rename(other, &path).unwrap();
    drop(second);
    assert!(path.exists(), "it was another's");
}

/// Not a test: the predecessor of the next one, when it is started for that.
#[tokio::test]
async fn helper_that_offers_and_waits_to_be_killed() {
    if let Some(path) = std::env::var_os(HELPER_SOCKET) {
        offer(Path::new(&path)).await.unwrap();
    }
}

#[tokio::test]
async fn a_predecessor_that_is_killed_after_its_offer_leaves_the_sockets_to_the_successor() {
    let (_folder, path) = folder();
    let helper = "process::upgrade::tests::helper_that_offers_and_waits_to_be_killed";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", helper]).env(HELPER_SOCKET, &path).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let (payload, _, predecessor) = wait_for(&path).await.unwrap();
    assert_eq!(payload, "payload");
    end(&mut process);
    predecessor.accept(&7).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_ends_is_not_the_predecessor_s_end() {
    let (_folder, path) = folder();
    let (accepted, ()) = tokio::join!(async { wait_for(&path).await.unwrap().2.accept(&()).await }, async {
        let connection = Connection::new(connect(&path).await);
        connection.send(&Offer { version: VERSION, descriptors: 0, payload: "" }, &[]).await.unwrap();
    });
    assert!(matches!(accepted, Err(AcceptError::Aborted(_))), "{accepted:?}");
}

#[tokio::test]
async fn a_process_is_watched_to_its_end() {
    let mut process = Command::new("sleep").arg("60").spawn().unwrap();
    let descriptor = pidfd_open(Pid::from_child(&process), PidfdFlags::empty()).unwrap();
    let exit = ProcessExit::watch(descriptor).unwrap();
    assert!(timeout(Duration::from_millis(50), exit.wait()).await.is_err(), "it runs");
    end(&mut process);
    exit.wait().await;
}

fn end(process: &mut Child) {
    process.kill().unwrap();
    process.wait().unwrap();
}
