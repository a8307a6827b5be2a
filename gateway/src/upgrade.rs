//! What a gateway offers at an upgrade, and the new one takes: its listening sockets, each with what it is for.
//! `sq_shared::process::upgrade` has the protocol.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sq_shared::file_id::FileId;
use sq_shared::process::upgrade::{self, AcceptError, OfferError, Predecessor, Successor};

use crate::listen::{Listening, Role, Sockets};

/// A socket of an offer. They come in the order of the descriptors.
#[derive(Debug, Serialize, Deserialize)]
struct OfferedSocket {
    role: Role,
    /// Which file a socket file is.
    file: Option<FileId>,
}

/// What a new gateway was offered.
pub(crate) struct Offered {
    pub sockets: Vec<(Role, Listening)>,
    /// The running gateway, which waits for the answer.
    pub predecessor: Predecessor,
}

/// Offers these sockets. Gives those that the new gateway serves on.
///
/// # Errors
/// It does not serve. This process has its sockets still.
pub(crate) async fn offer(successor: Successor, sockets: &Sockets) -> Result<Vec<Role>, OfferError> {
    let all = sockets.all();
    let payload = all.map(|(role, socket)| OfferedSocket { role, file: socket.file });
    successor.offer(&payload, &all.map(|(_, socket)| socket.as_fd())).await
}

/// Waits at `path` for the sockets of the running gateway.
pub(crate) async fn wait_for_offer(path: &Path) -> Result<Offered, AcceptError> {
    let (offered, descriptors, predecessor): (Vec<OfferedSocket>, Vec<OwnedFd>, _) =
        upgrade::wait_for_offer(path).await?;
    if offered.len() != descriptors.len() {
        return Err(AcceptError::OtherVersion("its list of sockets is malformed".to_owned()));
    }
    let listening = |(offered, descriptor): (OfferedSocket, OwnedFd)| {
        Ok((offered.role, Listening::from_fd(descriptor, offered.file)?))
    };
    let sockets: io::Result<_> = offered.into_iter().zip(descriptors).map(listening).collect();
    let sockets = sockets.map_err(|error| AcceptError::OtherVersion(error.to_string()))?;
    Ok(Offered { sockets, predecessor })
}

#[cfg(test)]
mod tests {
    use sq_shared::config::{Config, ListenAddress};
    use sq_shared::process::upgrade::find_successor;
    use sq_tests::root::Root;
    use sq_tests::setup::Setup;

    use super::*;

    #[tokio::test]
    async fn sockets_come_with_what_they_are_for() {
        let root = Root::new(&Setup::default());
        let config = Config::load(&root.config()).unwrap();
        let sockets = Sockets::bind(&config).unwrap();
        let path = root.join("upgrade");
        let accepting = async {
            let offered = wait_for_offer(&path).await.unwrap();
            let sockets = Sockets::take_or_bind(&config, offered.sockets).unwrap();
            offered.predecessor.accept(&sockets.taken).await.unwrap();
            sockets
        };
        let offering = async { offer(find_successor(&path).await?, &sockets).await };
        let (new, accepted) = tokio::join!(accepting, offering);
        assert_eq!(accepted.unwrap(), [Role::Clients, Role::Admin]);
        for ((_, new), (_, old)) in new.all().into_iter().zip(sockets.all()) {
            assert_eq!(new.address().unwrap(), old.address().unwrap());
        }
    }

    #[test]
    fn a_socket_that_the_config_does_not_name_is_left() {
        let root = Root::new(&Setup::default());
        let mut config = Config::load(&root.config()).unwrap();
        let old = Sockets::bind(&config).unwrap();
        let offered = old.all().map(|(role, socket)| (role, socket.try_clone().unwrap())).into();
        config.gateway.listen = ListenAddress::Unix(root.join("clients.sock"));
        let new = Sockets::take_or_bind(&config, offered).unwrap();
        assert_eq!(new.taken, [Role::Admin]);
        assert_eq!(new.clients.address().unwrap(), config.gateway.listen);
    }
}
