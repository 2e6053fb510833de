use std::io::Read;

use super::*;

#[derive(Deserialize)]
struct Fixture {
    vocabulary: HashMap<String, u32>,
    rows: Vec<(String, Vec<u32>)>,
}

fn fixture() -> (WordPiece, Vec<(String, Vec<u32>)>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/wordpiece_tokens.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let Fixture { vocabulary, rows } = serde_json::from_str(&text).unwrap();
    let how = How { clean: true, lower: true, chinese: true, accents: false };
    (WordPiece::new(Path::new(path), vocabulary, how).unwrap(), rows)
}

#[test]
fn tokens_are_those_of_transformers() {
    let (bert, rows) = fixture();
    assert_eq!(rows.len(), 500);
    for (text, wanted) in rows {
        assert_eq!(bert.ids(&text), wanted, "{text:?}");
    }
}

#[test]
fn a_text_is_padded_or_cut() {
    let (bert, _) = fixture();
    let cat = bert.ids("a cat");
    let tokens = bert.encode("A  cat", 6);
    assert_eq!(tokens.ids, [101, cat[0], cat[1], 102, 0, 0]);
    assert_eq!((tokens.used, &tokens.left_out), (4, &None));
    assert_eq!(bert.decode(&tokens.ids), "a cat");
    let cut = bert.encode("a cat, a castle in the sky", 5);
    assert_eq!((cut.used, cut.left_out.as_deref()), (5, Some("a castle in the sky")));
    assert_eq!(bert.decode(&bert.ids("unaffable")), "unaffable");
}

#[test]
fn a_folder_says_how() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let open = || WordPiece::open(folder.path()).map_err(|error| error.to_string());
    assert!(open().unwrap_err().contains("vocab.txt"));
    assert!(!WordPiece::is_in(folder.path()));
    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n");
    assert!(open().unwrap_err().contains("`[SEP]`"));
    put("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ne\n##x\né\nE\n猫\n##猫\n");
    let bert = open().unwrap();
    assert_eq!(
        (bert.ids("EX é 猫ex 猫猫 q"), bert.count(), bert.pad()),
        (vec![4, 5, 4, 8, 4, 5, 8, 8, 1], 10, 0)
    );
    put("tokenizer_config.json", r#"{"do_lower_case": false, "tokenize_chinese_chars": false}"#);
    assert_eq!(open().unwrap().ids("E é 猫猫"), [7, 6, 8, 9]);
    // It goes before the other files.
    let whole = |kind: &str| {
        let vocabulary = r#"{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"É":4}"#;
        let normalizer = r#"{"lowercase":false,"strip_accents":null}"#;
        format!(r#"{{"normalizer":{normalizer},"model":{{"type":"{kind}","vocab":{vocabulary}}}}}"#)
    };
    put("tokenizer.json", &whole("WordPiece"));
    assert_eq!(open().unwrap().ids("É E"), [4, 1]);
    put("tokenizer.json", &whole("BPE"));
    assert!(open().unwrap_err().contains("kind BPE"));
}
