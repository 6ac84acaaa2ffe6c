//! Images of shared disks: plain files, written in full so that no later write has to allocate, with or without
//! a file system.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Attempt, LabError, Result};
use crate::shell::run;

/// File systems that the lab can make, with the smallest image that each accepts here, in MiB.
const FILE_SYSTEMS: [(&str, u64); 3] = [("ext4", 16), ("xfs", 300), ("btrfs", 128)];

/// How a shared disk of a lab is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskConfig<'a> {
    /// Its name in the lab.
    pub name: &'a str,
    /// Its least size in MiB.
    pub size_mib: u64,
    /// The file system on it: ext4, xfs, btrfs; none: blank.
    pub file_system: Option<&'a str>,
    /// The file system leaves everything from this byte on alone.
    pub kept_free: Option<u64>,
    /// Bytes of a sector as hosts see them: 512 or 4096.
    pub sector_size: u32,
}

/// A shared disk of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its name in the lab.
    pub(crate) name: String,
    /// The image file.
    pub(crate) image: PathBuf,
    /// Bytes of a sector.
    pub(crate) sector_size: u32,
}

impl Disk {
    /// Makes the image `directory/name.img`, all zero, and on it a file system if one is named; the size is raised to
    /// that file system's smallest one.
    ///
    /// # Errors
    /// When the file can't be written, or the file system is not one of ext4, xfs, btrfs.
    pub(crate) fn create(directory: &Path, config: &DiskConfig<'_>) -> Result<Disk> {
        let DiskConfig { name, mut size_mib, file_system, kept_free, sector_size } = *config;
        if let Some(wanted) = file_system {
            let known = FILE_SYSTEMS.iter().find(|(kind, _)| *kind == wanted);
            let (_, least) = known.ok_or_else(|| LabError::Unknown {
                kind: "file system that the lab can make",
                name: wanted.to_string(),
                known: "ext4, xfs, btrfs".into(),
            })?;
            size_mib = size_mib.max(*least);
        }
        let image = directory.join(format!("{name}.img"));
        fill(&image, size_mib).attempt(|| format!("writing the disk image {}", image.display()))?;
        let path = image.to_string_lossy().into_owned();
        let bytes = kept_free.unwrap_or(size_mib << 20);
        match file_system {
            Some("ext4") => {
                let complete = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
                // Small file systems get small blocks by default, and a block is not smaller than a sector.
                let block = sector_size.max(1024).to_string();
                run("mkfs.ext4", &["-q", "-F", "-b", &block, "-E", complete, &path, &format!("{}k", bytes >> 10)])?;
            }
            Some("xfs") => {
                run(
                    "mkfs.xfs",
                    &["-q", "-f", "-s", &format!("size={sector_size}"), "-d", &format!("size={bytes}"), &path],
                )?;
            }
            Some(_) => {
                run("mkfs.btrfs", &["-q", "-f", "-b", &bytes.to_string(), &path])?;
            }
            None => {}
        }
        Ok(Disk { name: name.to_string(), image, sector_size })
    }
}

fn fill(image: &Path, size_mib: u64) -> std::io::Result<()> {
    let mut file = File::create(image)?;
    let block = vec![0_u8; 1 << 20];
    for _ in 0..size_mib {
        file.write_all(&block)?;
    }
    file.sync_all()
}

/// Removes a directory tree; fine when it is gone.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).attempt(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
