//! Records: hashes of cases, read, compared and written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use freeguide::gpu::{DeviceChoice, Gpu, Plan};

use super::{GROUPS, probe};

/// The device of this process.
pub fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| Gpu::new_blocking(&DeviceChoice::Auto).expect("the tests need a GPU adapter"))
}

/// FNV-1a of 64 bits.
pub struct Hash(u64);

impl Hash {
    pub fn new() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn values(&mut self, values: &[f32]) {
        values.iter().for_each(|value| self.bytes(&value.to_bits().to_le_bytes()));
    }

    pub fn finish(&self) -> u64 {
        self.0
    }
}

/// A plan's dispatches in order, a line each: kernel and workgroups.
pub struct Dispatches {
    pub plan: &'static str,
    lines: Vec<String>,
}

impl Dispatches {
    pub fn of(plan: &'static str, recorded: &Plan) -> Dispatches {
        let lines = recorded.labels().zip(recorded.workgroups());
        Dispatches { plan, lines: lines.map(|(label, groups)| format!("{label} x{groups}")).collect() }
    }

    /// How many there are, and a hash of them.
    fn summary(&self) -> String {
        let mut hash = Hash::new();
        for line in &self.lines {
            hash.bytes(line.as_bytes());
            hash.bytes(b"\n");
        }
        format!("{} {:016x}", self.lines.len(), hash.finish())
    }
}

/// What a case comes to.
pub struct Drawn {
    /// Of all bits that matter.
    pub hash: u64,
    pub plans: Vec<Dispatches>,
}

/// What is done with records.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Compare,
    Write,
    Must,
    Lists,
}

fn mode() -> Mode {
    match std::env::var("FREEGUIDE_RECORD").as_deref() {
        Err(_) | Ok("" | "0") => Mode::Compare,
        Ok("1") => Mode::Write,
        Ok("must") => Mode::Must,
        Ok("lists") => Mode::Lists,
        Ok(other) => panic!("FREEGUIDE_RECORD={other}: it may be 1, must or lists"),
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pictures")
}

/// A name of letters, digits and what may stand in names of files.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || ".+-".contains(c) { c } else { ' ' };
    let words: String = name.chars().map(kept).collect();
    words.split_whitespace().collect::<Vec<_>>().join("-").to_lowercase()
}

/// One file of records, and what this run adds to it.
struct Book {
    path: PathBuf,
    known: Option<BTreeMap<String, String>>,
    found: BTreeMap<String, String>,
}

impl Book {
    fn open(name: &str) -> Book {
        let path = fixtures().join(format!("{name}.txt"));
        let known = fs::read_to_string(&path).ok().map(|text| lines(&text));
        Book { path, known, found: BTreeMap::new() }
    }

    /// Compares with the record, where there is one.
    fn add(&mut self, case: &str, value: String, complaints: &mut Vec<String>) -> bool {
        let same = match self.known.as_ref().map(|known| known.get(case)) {
            None => true,
            Some(Some(known)) if *known == value => true,
            Some(Some(known)) => {
                complaints.push(format!("{case}: {value}, recorded was {known}"));
                false
            }
            Some(None) => {
                complaints.push(format!("{case}: {value}, and there is no record of it"));
                false
            }
        };
        let twice = self.found.insert(case.to_owned(), value);
        assert!(twice.is_none(), "{case} is there twice");
        same
    }

    /// Recorded cases of this group that did not run.
    fn missing(&self, group: &str) -> Vec<String> {
        let known = self.known.iter().flat_map(BTreeMap::keys);
        let of_group = known.filter(|case| of(case) == group && !self.found.contains_key(*case));
        of_group.map(|case| format!("{case}: recorded, but it did not run")).collect()
    }

    /// Puts what was found in the place of what was known of this group. Other tests' processes write to the same file.
    fn write(&self, group: &str) {
        fs::create_dir_all(fixtures()).unwrap();
        let _lock = Lock::take(&self.path.with_extension("lock"));
        let mut all = fs::read_to_string(&self.path).map(|text| lines(&text)).unwrap_or_default();
        all.retain(|case, _| of(case) != group && GROUPS.contains(&of(case)));
        all.extend(self.found.clone());
        let text = all.iter().fold(String::new(), |mut text, (case, value)| {
            writeln!(text, "{case} = {value}").unwrap();
            text
        });
        fs::write(&self.path, text).unwrap();
    }
}

fn lines(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (case, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line:?} is no record"));
        (case.to_owned(), value.to_owned())
    };
    text.lines().map(line).collect()
}

/// The group of a case.
fn of(case: &str) -> &str {
    case.split(':').next().unwrap_or(case)
}

/// A file that is there for as long as one process writes.
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Lock {
        let start = Instant::now();
        while let Err(error) = fs::OpenOptions::new().write(true).create_new(true).open(path) {
            let path = path.display();
            assert!(start.elapsed() < Duration::from_secs(20), "{path} is in the way: {error}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Lock(path.to_owned())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The cases of a test.
pub struct Cases {
    group: &'static str,
    mode: Mode,
    pictures: Book,
    dispatches: Book,
    complaints: Vec<String>,
    tried: usize,
}

/// Where there is no record, every so many cases run twice: that the same call draws the same bits is what `determinism.rs` asks, too.
const TWICE_EVERY: usize = 4;

/// Runs a group of cases, and fails with all that differ.
#[track_caller]
pub fn group(group: &'static str, run: impl FnOnce(&mut Cases)) {
    assert!(GROUPS.contains(&group), "{group} is no group of `GROUPS`");
    let capabilities = gpu().capabilities();
    let adapter = format!("{}.{:016x}", plain(&capabilities.name), probe::fingerprint(gpu()));
    // Group norms of one pass take as many invocations as there are.
    let invocations = capabilities.limits.max_compute_invocations_per_workgroup;
    let rung = format!("dispatches-{}-{invocations}", capabilities.rung);
    let (mode, pictures, dispatches) = (mode(), Book::open(&adapter), Book::open(&rung));
    let mut cases = Cases { group, mode, pictures, dispatches, complaints: Vec::new(), tried: 0 };
    for book in [&mut cases.pictures, &mut cases.dispatches] {
        match (mode, &book.known) {
            (Mode::Write, _) => book.known = None,
            (Mode::Must, None) => panic!("there is no record {}", book.path.display()),
            (_, None) => println!(
                "there is no record {}: of every {TWICE_EVERY}th case two runs are compared",
                book.path.display()
            ),
            (_, Some(_)) => {}
        }
    }
    run(&mut cases);
    cases.finish();
}

impl Cases {
    /// Runs a case, once where there is a record, else now and then twice.
    pub fn check(&mut self, case: &str, run: impl Fn() -> Drawn) {
        let full = format!("{}: {case}", self.group);
        assert!(!case.contains(" = ") && of(&full) == self.group, "{case}");
        let drawn = run();
        if self.asks_twice() {
            let again = run().hash;
            if again != drawn.hash {
                self.complaints.push(format!("{full}: {:016x}, and in another run {again:016x}", drawn.hash));
            }
        }
        self.pictures.add(&full, format!("{:016x}", drawn.hash), &mut self.complaints);
        drawn.plans.iter().for_each(|list| self.check_plan(case, list));
    }

    /// Whether this case, the next, is one that runs twice.
    fn asks_twice(&mut self) -> bool {
        self.tried += 1;
        self.pictures.known.is_none() && self.tried % TWICE_EVERY == 1
    }

    /// A run without plans of its own.
    pub fn check_hash(&mut self, case: &str, run: impl Fn() -> u64) {
        self.check(case, || Drawn { hash: run(), plans: Vec::new() });
    }

    /// A plan alone.
    pub fn check_plan(&mut self, case: &str, list: &Dispatches) {
        let plan = format!("{}: {case}, {}", self.group, list.plan);
        let same = self.dispatches.add(&plan, list.summary(), &mut self.complaints);
        if !same || self.mode == Mode::Lists {
            let written = write_list(&plan, list);
            if !same {
                self.complaints.push(format!("    its dispatches are in {}", written.display()));
            }
        }
    }

    /// Several hashes of one run, as of a folder's files: a case each, by name.
    pub fn check_many(&mut self, case: &str, run: impl Fn() -> Vec<(String, u64)>) {
        let found = run();
        if self.asks_twice() {
            let again = run();
            if again != found {
                self.complaints.push(format!("{case}: {found:x?}, and in another run {again:x?}"));
            }
        }
        for (name, hash) in found {
            let case = format!("{}: {case}, {name}", self.group);
            self.pictures.add(&case, format!("{hash:016x}"), &mut self.complaints);
        }
    }

    fn finish(self) {
        let Cases { group, mode, pictures, dispatches, mut complaints, .. } = self;
        complaints.extend([&pictures, &dispatches].iter().flat_map(|book| book.missing(group)));
        assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
        println!("{group}: {} cases, {} plans", pictures.found.len(), dispatches.found.len());
        if mode == Mode::Write {
            pictures.write(group);
            dispatches.write(group);
        }
    }
}

fn write_list(plan: &str, list: &Dispatches) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{}.txt", plain(plan)));
    fs::write(&path, list.lines.join("\n") + "\n").unwrap();
    path
}

#[test]
fn records_hold_lines_of_groups_alone() {
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).unwrap();
            let known = lines(&text);
            assert_eq!(known.len(), text.lines().count(), "{}: a case is there twice", path.display());
            for case in known.keys() {
                assert!(GROUPS.contains(&of(case)), "{}: {case} is of no group", path.display());
            }
        }
    }
}

/// The values of Noll and Fowler's page: a record is good for as long as the hash stays what it is.
#[test]
fn the_hash_is_fnv_1a() {
    for (text, want) in
        [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
    {
        let mut hash = Hash::new();
        hash.bytes(text.as_bytes());
        assert_eq!(hash.finish(), want, "{text:?}");
    }
}
