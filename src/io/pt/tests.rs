use std::io::Write;
use std::path::PathBuf;

use super::*;
use crate::io::{SafetensorsFile, write_safetensors};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Both hold the same tensors, bit for bit; `prefix` stands before the names of the second.
fn same(pt: &PtFile, golden: &SafetensorsFile, prefix: &str) {
    let names: Vec<String> =
        golden.names().iter().filter_map(|n| n.strip_prefix(prefix)).map(str::to_owned).collect();
    assert_eq!(pt.names(), names);
    for name in names {
        let (dtype, shape, bytes) = golden.tensor(&format!("{prefix}{name}")).unwrap();
        assert_eq!(pt.about(&name).unwrap().1, shape, "{name}");
        if pt.about(&name).unwrap().0 == dtype {
            assert_eq!(pt.bytes(&name).unwrap(), bytes, "{name}");
            let count: usize = shape.iter().product();
            let (part, width) = (count / 3..count, dtype.bitsize() / 8);
            assert_eq!(pt.part(&name, part.clone()).unwrap(), bytes[part.start * width..], "{name}");
            assert!(pt.part(&name, 0..count + 1).is_err());
        } else {
            // Golden weights are f16 and exact; a file in f32 holds the same numbers.
            let golden = golden.to_f32(&format!("{prefix}{name}")).unwrap().1;
            assert_eq!(pt.values(&name).unwrap().1, golden, "{name}");
        }
    }
}

#[test]
fn every_type_and_view_is_the_golden_one_in_both_formats() {
    let golden = SafetensorsFile::open(fixture("pt_edge.safetensors")).unwrap();
    for name in ["pt_edge_zip.pt", "pt_edge_legacy.pt"] {
        let pt = PtFile::open(fixture(name)).unwrap();
        same(&pt, &golden, "");
        for name in golden.names() {
            assert_eq!(pt.about(&name).unwrap().0, golden.tensor(&name).unwrap().0, "{name}");
        }
        let plain = [
            ("step", Plain::Int(7)),
            ("lr", Plain::Float(1e-4)),
            ("name", Plain::Text("adm".into())),
            ("list/0", Plain::Int(1)),
            ("list/1", Plain::Float(2.5)),
            ("list/2/0", Plain::Int(3)),
            ("list/2/1", Plain::Text("z".into())),
            ("none", Plain::None),
            ("flag", Plain::Bool(true)),
            ("big", Plain::Long(vec![0, 0, 0, 0, 0, 0, 0, 0, 0x40])),
        ];
        let plain: BTreeMap<String, Plain> = plain.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        assert_eq!(pt.plain(), &plain);
    }
}

#[test]
fn an_optimiser_state_is_read() {
    let pt = PtFile::open(fixture("pt_opt_zip.pt")).unwrap();
    let names = ["state/0/exp_avg", "state/0/exp_avg_sq", "state/0/step", "state/1/exp_avg"];
    assert_eq!(pt.names()[..4], names);
    assert_eq!(pt.names().len(), 6);
    assert_eq!(pt.about("state/0/exp_avg").unwrap(), (Dtype::F32, vec![3, 4]));
    assert_eq!(pt.values("state/0/step").unwrap(), (vec![], vec![1.0]));
    assert_eq!(pt.plain()["param_groups/0/params/1"], Plain::Int(1));
}

/// The beginning of a golden file of the older format, completed with its storages; `crc` is that of the whole.
fn completed(head: &str, golden: &SafetensorsFile, crc: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(fixture(head)).unwrap();
    let path = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(path.path(), &bytes).unwrap();
    let mut heap = heap::Heap::default();
    let stream = legacy::open(&Pieces::open(path.path()).unwrap(), &mut heap).unwrap();
    let entries = flatten::flatten(&heap, stream.root).unwrap();
    for key in &stream.keys {
        let (name, view) = entries.tensors.iter().find(|(_, view)| view.storage.key == *key).unwrap();
        let (dtype, _, halves) = golden.tensor(&format!("w.{name}")).unwrap();
        assert_eq!(dtype, Dtype::F16);
        bytes.extend(view.storage.elements.to_le_bytes());
        match view.storage.dtype {
            Dtype::F16 => bytes.extend(halves),
            _ => {
                let values = golden.to_f32(&format!("w.{name}")).unwrap().1;
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
    }
    let mut sum = flate2::Crc::new();
    sum.update(&bytes);
    assert_eq!(sum.sum(), crc, "{head} was not completed to the golden file");
    bytes
}

#[test]
fn whole_networks_are_the_golden_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pt");

    let golden = SafetensorsFile::open(fixture("classifier.safetensors")).unwrap();
    std::fs::write(&path, completed("classifier_fp16_legacy.pt.head", &golden, CLASSIFIER_CRC)).unwrap();
    let pt = PtFile::open(&path).unwrap();
    same(&pt, &golden, "w.");
    assert_eq!(pt.about("input_blocks.0.0.weight").unwrap().0, Dtype::F16);
    assert_eq!(pt.about("time_embed.0.weight").unwrap().0, Dtype::F32);

    let golden = SafetensorsFile::open(fixture("unet_a.safetensors")).unwrap();
    std::fs::write(&path, completed("unet_a_legacy.pt.head", &golden, UNET_A_CRC)).unwrap();
    let legacy = PtFile::open(&path).unwrap();
    same(&legacy, &golden, "w.");

    // The same network in the newer format: its golden pickle, and the storages in the order of their numbers.
    let pickle = std::fs::read(fixture("unet_a.data.pkl")).unwrap();
    let mut heap = heap::Heap::default();
    let (root, _) = pickle::load(&pickle, &mut heap).unwrap();
    let entries = flatten::flatten(&heap, root).unwrap();
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let path = dir.path().join("y.pt");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file("unet_a/data.pkl", stored).unwrap();
    zip.write_all(&pickle).unwrap();
    for (name, view) in &entries.tensors {
        zip.start_file(format!("unet_a/data/{}", view.storage.key), stored).unwrap();
        zip.write_all(&legacy.bytes(name).unwrap()).unwrap();
    }
    zip.finish().unwrap();
    same(&PtFile::open(&path).unwrap(), &golden, "w.");
}

const CLASSIFIER_CRC: u32 = 0x68dc_ac90;
const UNET_A_CRC: u32 = 0xcc61_eb1c;

/// A file of the newer format with this pickle and these storages.
fn zipped(pickle: &[u8], storages: &[(&str, &[u8])]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".pt").unwrap();
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut zip = zip::ZipWriter::new(file.reopen().unwrap());
    zip.start_file("a/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    for (key, bytes) in storages {
        zip.start_file(format!("a/data/{key}"), stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    file
}

/// A pickle of {"w": a tensor}, whose sizes are long integers.
fn tensor_pickle(elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let mut p =
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
            .to_vec();
    let int = |p: &mut Vec<u8>, value: i64| {
        p.extend([0x8a, 8]);
        p.extend(value.to_le_bytes());
    };
    p.extend(b"X\x01\0\0\x000X\x03\0\0\0cpu");
    int(&mut p, elements);
    p.extend(b"tQ");
    int(&mut p, offset);
    for sizes in [shape, strides] {
        p.push(b'(');
        sizes.iter().for_each(|size| int(&mut p, *size));
        p.push(b't');
    }
    p.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    p
}

fn refused(pickle: &[u8], storages: &[(&str, &[u8])]) -> String {
    let file = zipped(pickle, storages);
    PtFile::open(file.path()).unwrap_err().to_string()
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let open = |elements, offset, shape: &[i64], strides: &[i64]| {
        let file = zipped(&tensor_pickle(elements, offset, shape, strides), &[("0", &bytes)]);
        let pt = PtFile::open(file.path()).map_err(|error| error.to_string())?;
        Ok::<_, String>(pt.values("w").unwrap().1)
    };
    assert_eq!(open(6, 0, &[2, 3], &[3, 1]).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(open(6, 1, &[2, 2], &[1, 3]).unwrap(), [1.0, 4.0, 2.0, 5.0]);
    assert_eq!(open(6, 5, &[1, 1], &[99, 99]).unwrap(), [5.0]);
    assert_eq!(open(6, 0, &[0, 4], &[4, 1]).unwrap(), [0.0; 0]);
    for (elements, offset, shape, strides) in [
        (7, 0, &[2i64, 3][..], &[3i64, 1][..]),
        (i64::MAX, 0, &[2, 3], &[3, 1]),
        (6, 1, &[2, 3], &[3, 1]),
        (6, i64::MAX, &[2, 3], &[3, 1]),
        (6, 0, &[1_000_000_000], &[0]),
        (6, 0, &[1_000_000_000], &[1]),
        (6, 0, &[i64::MAX, i64::MAX], &[1, 1]),
        (6, 0, &[0, i64::MAX, i64::MAX], &[1, 1, 1]),
        (6, 0, &[2, 2], &[i64::MAX, 1]),
        (6, 0, &[2, 2], &[5, 1]),
    ] {
        let message = open(elements, offset, shape, strides).unwrap_err();
        assert!(message.contains("tensor `w`"), "{message}");
    }
    for (shape, strides) in [(&[-1i64][..], &[1i64][..]), (&[2, 3], &[1]), (&[1; 17], &[1; 17])] {
        let message = open(6, 0, shape, strides).unwrap_err();
        assert!(message.contains("pickle"), "{message}");
    }
    let no_storage = refused(&tensor_pickle(6, 0, &[6], &[1]), &[]);
    assert!(no_storage.contains("storage 0 that is not there"), "{no_storage}");
}

/// What the object of this pickle is called; it was not made.
fn opaque(pickle: &[u8]) -> String {
    let file = zipped(pickle, &[]);
    let pt = PtFile::open(file.path()).unwrap();
    assert_eq!((pt.names().len(), pt.plain().len()), (0, 0));
    pt.opaque().into_values().collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_no_tensor_is_named_and_never_made() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "os.system"),
        (b"\x80\x02cposix\nsystem\n.", "posix.system"),
        (b"\x80\x02c__builtin__\neval\nX\x01\0\0\x001\x85R.", "__builtin__.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.", "builtins.exec"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"\x80\x02(ios\nsystem\n.", "os.system"),
        (b"\x80\x02(cos\nsystem\nNo.", "os.system"),
        // A Namespace: made without arguments, given a dict of attributes, and what it makes is called.
        (b"\x80\x02cargparse\nNamespace\n)\x81}X\x02\0\0\0lrK\x01sb.", "argparse.Namespace"),
        (b"\x80\x04cargparse\nNamespace\n)}\x92)R.", "argparse.Namespace"),
        // What is put into one is let go: entries, items, items of a set.
        (b"\x80\x04cmy\nThing\n)\x81K\x01K\x02s(K\x01K\x02uK\x01a(K\x01e(K\x01\x90.", "my.Thing"),
        // A scalar of NumPy's, as torch.save writes it: a function of a type and of encoded bytes.
        (
            b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\0\0\0f8K\0K\x01\x87R(K\x03X\x01\0\0\0<NNNtb\
              c_codecs\nencode\nX\x02\0\0\0abX\x06\0\0\0latin1\x86R\x86R.",
            "numpy.core.multiarray.scalar",
        ),
    ] {
        assert_eq!(opaque(pickle), name);
    }
    // Two that are one in the stream have one name; keys that are no names are told apart by their places.
    assert_eq!(opaque(b"\x80\x02cmy\nThing\n)\x81q\0h\0\x86."), "my.Thing, my.Thing");
    assert_eq!(
        opaque(b"\x80\x02}(K\x01K\x02\x86cmy\nThing\nK\x01K\x02\x86cmy\nThing\nu."),
        "my.Thing, my.Thing"
    );
}

#[test]
fn a_tensor_of_elements_that_are_not_read_is_named() {
    let pickle = tensor_pickle(6, 0, &[2, 3], &[3, 1]);
    let text = String::from_utf8_lossy(&pickle).into_owned();
    assert!(text.contains("FloatStorage"));
    let pickle: Vec<u8> = {
        let at = pickle.windows(12).position(|part| part == b"FloatStorage").unwrap();
        [&pickle[..at], b"ComplexFloatStorage", &pickle[at + 12..]].concat()
    };
    let file = zipped(&pickle, &[("0", &[0; 48])]);
    let pt = PtFile::open(file.path()).unwrap();
    assert_eq!(pt.opaque().get("w").map(String::as_str), Some("torch.ComplexFloatStorage"));
    let message = pt.bytes("w").unwrap_err().to_string();
    assert!(message.contains("`w`") && message.contains("torch.ComplexFloatStorage"), "{message}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (pickle, name) in [
        (&b"\x80\x02\x82\x01."[..], "EXT"),
        (b"\x80\x02K\x01)R.", "calls an integer"),
        (b"\x80\x02K\x01)\x81.", "object of an integer"),
        (b"\x80\x02(o.", "no class"),
        (b"\x80\x02K\x01}b.", "attributes"),
        (b"\x80\x05\x97.", "buffer"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "arguments"),
        (b"I1\n.", "protocol 0"),
    ] {
        let message = refused(pickle, &[]);
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn streams_that_grow_without_end_are_refused() {
    // A list that holds itself.
    assert!(refused(b"\x80\x02]q\0h\0a.", &[]).contains("holds itself"));
    // Lists of ten times the one before, shared: 10^20 values in 300 bytes.
    let mut billions = b"\x80\x02K\x07q\0".to_vec();
    for level in 1..21u8 {
        billions.push(b'(');
        (0..10).for_each(|_| billions.extend([b'h', level - 1]));
        billions.extend([b'l', b'q', level]);
    }
    billions.push(b'.');
    assert!(refused(&billions, &[]).contains("more than"));
    // A dict made again and again of one long list of entries.
    let mut copies = b"\x80\x02ccollections\nOrderedDict\nq\0(".to_vec();
    (0..1000).for_each(|_| copies.extend(b"NN\x86"));
    copies.extend(b"lq\x01");
    (0..1000).for_each(|_| copies.extend(b"h\0h\x01\x85R"));
    copies.push(b'.');
    assert!(refused(&copies, &[]).contains("over and over"));
    // Names of types without end: each of many modules with each of many names, both remembered.
    let mut types = b"\x80\x04".to_vec();
    for i in 0..200u8 {
        types.extend([0x8c, 3, b'a' + i / 26, b'a' + i % 26, b'm', 0x94, b'0']);
    }
    for i in 0..200u8 {
        (0..200u8).for_each(|j| types.extend([b'h', i, b'h', j, 0x93, b'0']));
    }
    types.extend(b"N.");
    assert!(refused(&types, &[]).contains("4096 types"));
    let long = [&b"\x80\x04X\0\x10\0\0"[..], &[b'x'; 4096], b"X\x01\0\0\0y\x93."].concat();
    assert!(refused(&long, &[]).contains("name of a type has 4097 bytes"));
    // A text of four gigabytes.
    assert!(refused(b"\x80\x02X\xff\xff\xff\xffabc.", &[]).contains("cut short"));
    assert!(refused(b"\x80\x02K\x01", &[]).contains("cut short"));
    // Millions of values, marks and names for one of them.
    for opcode in [b'N', b'(', b'2', 0x94] {
        let mut many = b"\x80\x02N".to_vec();
        many.resize(3 << 20, opcode);
        assert!(refused(&many, &[]).contains("more than"), "{opcode}");
    }
    // Names that collide.
    assert!(refused(b"\x80\x02}(K\x01NX\x01\0\0\x001Nu.", &[]).contains("`1` comes twice"));
}

#[test]
fn what_only_looks_like_one_is_told() {
    let open = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::with_suffix(".pt").unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        PtFile::open(file.path()).unwrap_err().to_string()
    };
    assert!(open(b"").contains("empty"));
    assert!(
        open(&[0x80, 2, b'K', 7, b'.', 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .contains("pickle that PyTorch did not write")
    );
    assert!(open(&[7; 40]).contains("no PyTorch file"));
    assert!(open(b"version https://git-lfs.github.com/spec/v1\nsize 12\n").contains("git lfs pull"));
    assert!(open(b"<!DOCTYPE html><html>Virus scan warning</html>").contains("web page"));
    assert!(open(b"PK\x03\x04").contains("zip"));
    let mut tar = vec![0; 600];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(open(&tar).contains("tar"));
    let zip = |name: &str| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(b"\x80\x02}.").unwrap();
        writer.finish().unwrap().into_inner()
    };
    assert!(open(&zip("a/other.pkl")).contains("data.pkl"));
    assert!(open(&zip("a/data.pkl")).contains("compressed"));
    let stored = zipped(b"\x80\x02}.", &[]);
    assert_eq!(PtFile::open(stored.path()).unwrap().names(), [""; 0]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.safetensors");
    write_safetensors(&path, &[], &BTreeMap::new()).unwrap();
    assert!(PtFile::open(&path).unwrap_err().to_string().contains("safetensors"));
}
