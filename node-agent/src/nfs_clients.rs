//! Keeps the records by which the kernel's NFS server knows its NFS 4 clients again: who had files open or locked, and may
//! reclaim that from the next server. In the place of `nfsdcld`, which keeps all of them in one place of one server, each is
//! kept in the state directory of every export that is here, so that it goes with the export's file system
//! (docs/decisions/0018). Clients of exports without one are kept on this server.
//!
//! The kernel asks through the pipe `nfsd/cld` of rpc_pipefs, which is there while the NFS server runs. It waits for the
//! answer before it gives a client its first file, so a record is on the disk before anybody relies on it.

mod message;
mod records;
mod registry;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::resources::mounts;
use message::{Client, Command, LONGEST, Question};
use records::Records;
pub use registry::Registry;

/// Records of clients of exports without a state directory.
const OWN: &str = "/var/lib/holdfast-nfs";

/// Keeps records until it is killed; started by the system in the place of `nfsdcld`.
///
/// # Errors
/// A sentence.
pub fn nfs_clients_main() -> Result<(), String> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(OWN).map_err(|e| format!("{OWN}: {e}"))?;
    let pipes = pipes().map_err(|e| format!("the table of mounts: {e}"))?.ok_or(
        "rpc_pipefs is not mounted, so the kernel's NFS server can't ask; systemd mounts it as rpc_pipefs.target, by \
         hand: mount -t rpc_pipefs sunrpc /run/rpc_pipefs",
    )?;
    let keeper = Keeper { registry: Registry::system(), own: Records::of(Path::new(OWN)) };
    let _serving = keeper.registry.serve().map_err(|e| format!("the state in /run: {e}"))?;
    keeper.serve(&pipes).map_err(|e| format!("{}: {e}", pipes.display()))
}

/// Where the kernel makes its pipe.
fn pipes() -> io::Result<Option<PathBuf>> {
    let table = mounts::table()?;
    Ok(table.iter().rev().find(|mount| mount.kind == "rpc_pipefs").map(|mount| mount.point.join("nfsd")))
}

struct Keeper {
    registry: Registry,
    own: Records,
}

impl Keeper {
    fn serve(&self, pipes: &Path) -> io::Result<()> {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        changes.add_watch(pipes, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE)?;
        let mut pipe = None;
        loop {
            if pipe.is_none() {
                pipe = open(&pipes.join("cld"))?;
            }
            let mut ready = vec![PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
            ready.extend(pipe.as_ref().map(|pipe: &File| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            poll(&mut ready, PollTimeout::NONE)?;
            let seen: Vec<PollFlags> = ready.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
            if seen[0].contains(PollFlags::POLLIN) {
                // What happened shows at the pipe.
                let _ = changes.read_events();
            }
            let Some(asked) = seen.get(1) else { continue };
            let ended = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
            if asked.intersects(ended) {
                pipe = None;
            } else if asked.contains(PollFlags::POLLIN)
                && let Some(open) = &mut pipe
                && let Err(error) = self.exchange(open)
            {
                // The NFS server was stopped meanwhile, or the kernel no longer waits for this answer.
                eprintln!("the kernel's NFS server: {error}");
                pipe = None;
            }
        }
    }

    /// Reads a question and answers it.
    fn exchange(&self, pipe: &mut File) -> io::Result<()> {
        let mut buffer = [0; LONGEST];
        let length = pipe.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let question = Question::parse(&buffer[..length])
            .ok_or_else(|| io::Error::other(format!("asks with {length} bytes what is not understood")))?;
        self.answers(&question).iter().try_for_each(|answer| pipe.write_all(answer))
    }

    /// Does what is asked; gives the messages that answer it, in order.
    fn answers(&self, question: &Question) -> Vec<Vec<u8>> {
        match self.carry_out(&question.command) {
            Ok(clients) => {
                let begin = clients.iter().map(|client| question.may_reclaim(client));
                begin.chain([question.done()]).collect()
            }
            Err(problem) => {
                eprintln!("{problem}");
                vec![question.failed()]
            }
        }
    }

    /// Gives who may reclaim, for a server that begins.
    fn carry_out(&self, command: &Command) -> Result<Vec<Client>, String> {
        match command {
            Command::Create(client) => self.everywhere("noting a client", |records| records.create(client)),
            Command::Remove(id) => self.everywhere("forgetting a client", |records| records.remove(id)),
            Command::GraceDone => self.everywhere("ending the grace period", Records::grace_done),
            Command::GraceStart => self.grace_start().map_err(|error| format!("beginning: {error}")),
            Command::GetVersion => Ok(Vec::new()),
            Command::Other(number) => Err(format!("the kernel's NFS server asks for {number}, which is not known")),
        }
    }

    /// In all directories, even if it fails in some.
    fn everywhere(&self, what: &str, act: impl Fn(&Records) -> io::Result<()>) -> Result<Vec<Client>, String> {
        let (_lock, entries) = self.registry.entries().map_err(|error| format!("{what}: {error}"))?;
        let mut all: Vec<Records> = entries.iter().map(|entry| Records::of(&entry.directory)).collect();
        all.push(self.own.clone());
        let failed = |records: &Records| {
            act(records).err().map(|error| format!("{what} in {}: {error}", records.directory().display()))
        };
        let problems: Vec<String> = all.iter().filter_map(failed).collect();
        if problems.is_empty() { Ok(Vec::new()) } else { Err(problems.join("\n")) }
    }

    /// A directory that can't be read keeps nobody else from reclaiming; its export does not start, for it is not loaded.
    fn grace_start(&self) -> io::Result<Vec<Client>> {
        let (_lock, entries) = self.registry.entries()?;
        self.drop_strangers(!entries.is_empty())?;
        let mut clients: BTreeMap<Vec<u8>, Client> = BTreeMap::new();
        let mut take = |found: Vec<Client>| clients.extend(found.into_iter().map(|client| (client.id.clone(), client)));
        take(self.own.grace_start()?);
        for entry in &entries {
            match Records::of(&entry.directory).grace_start() {
                Ok(found) => {
                    take(found);
                    self.registry.loaded(entry)?;
                }
                Err(error) => {
                    eprintln!("reading the clients in {}: {error}", entry.directory.display());
                    self.registry.not_loaded(entry)?;
                }
            }
        }
        Ok(clients.into_values().collect())
    }

    /// Of those that were known here before this boot nobody can tell who was a client of a group. Such a one may have lost its
    /// lease on another server meanwhile; if the group came back soon, it could reclaim what somebody else has had since.
    fn drop_strangers(&self, with_groups: bool) -> io::Result<()> {
        let mark = self.own.directory().join("with-groups");
        if self.registry.is_first_since_boot()? && mark.exists() {
            self.own.forget()?;
            fs::remove_file(&mark)?;
        }
        if with_groups {
            File::create(&mark)?.sync_all()?;
        }
        Ok(())
    }
}

/// None while the NFS server does not run.
fn open(pipe: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(pipe) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> Client {
        Client { id: id.into(), principal: Vec::new() }
    }

    struct Server {
        place: tempfile::TempDir,
        keeper: Keeper,
    }

    impl Server {
        fn new() -> Server {
            let place = tempfile::tempdir().unwrap();
            let own = place.path().join("own");
            fs::create_dir(&own).unwrap();
            let keeper = Keeper { registry: Registry::at(&place.path().join("run")), own: Records::of(&own) };
            Server { place, keeper }
        }

        /// A directory of the switched file system comes here.
        fn take(&self, directory: &Path) {
            self.keeper.registry.add(directory, directory).unwrap();
        }

        fn own(&self) -> PathBuf {
            self.place.path().join("own")
        }

        /// Names of those who may reclaim.
        fn begin(&self) -> Vec<String> {
            let may = self.keeper.carry_out(&Command::GraceStart).unwrap();
            may.into_iter().map(|client| String::from_utf8(client.id).unwrap()).collect()
        }

        fn tell(&self, command: Command) {
            assert_eq!(self.keeper.carry_out(&command), Ok(vec![]));
        }
    }

    #[test]
    fn the_clients_of_a_group_go_with_it_and_those_of_others_stay() {
        let disk = tempfile::tempdir().unwrap();
        let (one, two) = (disk.path().join("one"), disk.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let (a, b) = (Server::new(), Server::new());
        a.take(&one);
        b.take(&two);
        assert_eq!((a.begin(), b.begin()), (vec![], vec![]));
        for (server, name) in [(&a, "of a"), (&b, "of b")] {
            server.tell(Command::GraceDone);
            server.tell(Command::Create(client(name)));
        }
        // a stops, and dismisses its clients; b takes over.
        a.keeper.registry.remove(&one).unwrap();
        a.tell(Command::Remove("of a".into()));
        b.take(&one);
        assert!(!b.keeper.registry.is_loaded(&one));
        assert_eq!(b.begin(), ["of a", "of b"]);
        assert!(b.keeper.registry.is_loaded(&one) && b.keeper.registry.is_loaded(&two));
        b.tell(Command::Create(client("of a")));
        b.tell(Command::GraceDone);
        assert_eq!(b.begin(), ["of a"], "the other one did not come back");
        assert_eq!(a.begin(), [""; 0], "they are b's now");
    }

    #[test]
    fn after_a_boot_nobody_is_known_who_may_have_been_a_client_of_a_group() {
        let disk = tempfile::tempdir().unwrap();
        let server = Server::new();
        let boot = || fs::remove_dir_all(server.place.path().join("run")).unwrap();
        let serve = |name: &str| {
            server.tell(Command::GraceDone);
            server.tell(Command::Create(client(name)));
        };
        assert_eq!(server.begin(), [""; 0]);
        serve("without groups");
        boot();
        assert_eq!(server.begin(), ["without groups"]);
        server.take(disk.path());
        assert_eq!(server.begin(), ["without groups"], "it has not come back yet");
        serve("of a group, perhaps");
        assert_eq!(server.begin(), ["of a group, perhaps"], "no boot, no other server");
        boot();
        assert_eq!(server.begin(), [""; 0]);
        serve("later");
        boot();
        assert_eq!(server.begin(), ["later"]);
    }

    #[test]
    fn a_directory_that_fails_keeps_nobody_else_from_being_known() {
        let (server, gone) = (Server::new(), Path::new("/nonexistent/state"));
        server.take(gone);
        assert_eq!(server.begin(), [""; 0]);
        assert!(!server.keeper.registry.is_loaded(gone));
        assert!(server.keeper.carry_out(&Command::GraceDone).is_err());
        let problem = server.keeper.carry_out(&Command::Create(client("a"))).unwrap_err();
        assert!(problem.starts_with("noting a client in /nonexistent/state: "), "{problem}");
        assert_eq!(Records::of(&server.own()).grace_start().unwrap(), [client("a")]);
    }
}
