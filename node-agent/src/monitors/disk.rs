//! Reads, and if wanted writes, of a disk, past every cache of this server. A disk that hangs hangs this check, which is
//! left then, see [`super::run`].

use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use rand::Rng;

use super::plan::{DiskIo, OwnSlot};
use crate::disk::area::Area;
use crate::disk::device::{Access, Device, DeviceError};
use crate::disk::layout::BLOCK;
use crate::resources::Verdict;

/// Where a person finds what a disk did.
pub(super) const LOG: &str = "the kernel's log (`dmesg`) says what the disk does, and whether its path is there";

pub(super) fn run(plan: &DiskIo, run_dir: &Path) -> Verdict {
    if let Err(error) = read(plan) {
        return Verdict::failed(format!("it can't be read: {error}; {LOG}"));
    }
    match plan.area.as_ref().map(|area| write(area, run_dir)) {
        Some(Err(problem)) => Verdict::failed(problem),
        Some(Ok(())) | None => Verdict::running(),
    }
}

/// One block somewhere on the disk: one place alone may be in the memory of an array whose disks are gone.
fn read(plan: &DiskIo) -> Result<(), DeviceError> {
    let mut device = Device::open(&plan.device, 0, Access::Read)?;
    let blocks = device.size()? / BLOCK as u64;
    let block = if blocks > 0 { rand::rng().random_range(0..blocks) } else { 0 };
    device.read(block * BLOCK as u64, BLOCK).map(|_| ())
}

/// One block of this server's slot, which is used for nothing else, written and read back. Two monitors of one disk take
/// turns.
fn write(place: &OwnSlot, run_dir: &Path) -> Result<(), String> {
    let name = format!("trial{}.lock", place.device.display().to_string().replace('/', "-"));
    let turn = run_dir.join("monitors").join(name);
    let taken = turn.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
        let file = File::options().write(true).create(true).truncate(false).open(&turn)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    });
    let _turn = taken.map_err(|error: std::io::Error| format!("{} can't be locked: {error}", turn.display()))?;
    let mut area = Area::open(&place.device, place.offset, Access::Write).map_err(|e| e.to_string())?;
    area.try_out(place.slot, rand::random()).map_err(|e| format!("it can't be written: {e}; {LOG}"))
}
