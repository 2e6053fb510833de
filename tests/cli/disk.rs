//! A full disk is told, and leaves no half of a file.

use super::*;

/// A file system of 64 KiB; only the superuser can have one.
#[cfg(target_os = "linux")]
struct SmallDisk(PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn new(path: &Path) -> Option<SmallDisk> {
        fs::create_dir_all(path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(path);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(path.to_owned()))
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_leaves_no_half_of_a_file() {
    let place = Place::new();
    let model = model(&place);
    let sample = |out: &str| {
        let fixed = ["sample", "--model", &model, "--steps", "1", "--seeds", "0-39", "--force", "--out", out];
        run(&fixed).expect(1)
    };
    // Any user has a device that is always full.
    let full = place.path("full.npz");
    std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    let finished = sample(full.to_str().unwrap());
    contains(&finished.stderr, &["error: ", "full.npz", "No space left"]);
    assert!(!finished.stderr.contains("ZipWriter"), "{}", finished.stderr);

    let Some(disk) = SmallDisk::new(&place.path("disk")) else {
        println!("no small file system without the superuser's rights");
        return;
    };
    // 400 pictures of 192 bytes do not fit into 64 KiB.
    let finished = sample(&place.text("disk/all.npz"));
    contains(&finished.stderr, &["error: ", "all.npz", "No space left"]);
    assert!(names(&disk.0).is_empty(), "{:?}", names(&disk.0));

    // Nor does the state of a training; what the training had said before is still whole.
    let out = place.text("disk/run");
    let finished = train_two_steps("digits", &out, &[]).expect(1);
    contains(&finished.stderr, &["error: ", "state", "No space left"]);
    assert_eq!(names(&disk.0.join("run")), ["train.json", "train.jsonl"]);
    assert_eq!(records(&disk.0.join("run")).len(), 2);
}
