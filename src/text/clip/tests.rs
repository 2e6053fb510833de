use std::io::Read;
use std::path::Path;

use super::*;

fn ids(text: &str) -> Vec<u32> {
    ClipTokenizer::shipped().ids(text)
}

#[test]
fn tokens_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clip_tokens.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let rows: Vec<(String, Vec<u32>)> = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.len(), 2000);
    for (text, wanted) in rows {
        assert_eq!(ids(&text), wanted, "{text:?}");
    }
}

#[test]
fn words_split_where_clips_expression_does() {
    assert_eq!(ids("a  cat\n"), ids("A Cat"));
    assert_eq!(ids("don't"), [847, 713]);
    // A curly apostrophe stays one; ftfy would have made it straight, and 847, 713 of it.
    assert_eq!(ids("don\u{2019}t"), [847, 728, 503, 339]);
    assert_eq!(ids("e\u{301}"), ids("é"));
    // The last sigma of a word of capitals is no ς.
    assert_eq!(ids("ΣΑΣ"), ids("σασ"));
}

#[test]
fn special_words_are_found_as_they_are_written() {
    assert_eq!(ids("a<|endoftext|>b"), [320, 49407, 321]);
    assert_eq!(ids("<|ENDOFTEXT|>"), [27, 347, 40786, 4160, 91, 285]);
    assert_eq!(ids("A</w>"), [320, 34308, 342, 285]);
}

#[test]
fn a_text_is_padded_or_cut() {
    let clip = ClipTokenizer::shipped();
    let tokens = clip.encode("a cat!", 8, 0);
    assert_eq!(tokens.ids, [49406, 320, 2368, 256, 49407, 0, 0, 0]);
    assert_eq!((tokens.used, &tokens.left_out, tokens.warning()), (5, &None, None));
    assert_eq!(clip.encode("", 4, 49407).ids, [49406, 49407, 49407, 49407]);

    let exact = clip.encode(&"cat ".repeat(75), 77, 0);
    assert_eq!((exact.ids.len(), exact.used, exact.left_out), (77, 77, None));
    let long = clip.encode(&format!("{} A Red,  Fox", "cat ".repeat(74)), 77, 0);
    assert_eq!((long.ids.len(), long.used), (77, 77));
    assert_eq!((long.ids[75], long.ids[76]), (320, 49407));
    assert_eq!(long.left_out.as_deref(), Some("red,  fox"));
    let warning = long.warning().unwrap();
    assert!(warning.contains("\"red,  fox\" is left out") && warning.contains("75"), "{warning}");

    // Inside of a character, and where there is room for nothing.
    let cut = clip.encode("猫猫", 4, 0);
    assert_eq!((cut.used, cut.left_out.is_some()), (4, true));
    assert_eq!(clip.encode("cat", 2, 0).left_out.as_deref(), Some("cat"));
    assert_eq!(clip.encode("cat", 1, 0).ids, [49406]);
    assert_eq!(clip.encode("a <|endoftext|> b", 4, 0).left_out.as_deref(), Some("b"));
}

#[test]
fn tokens_are_told_in_words() {
    let clip = ClipTokenizer::shipped();
    let tokens = clip.encode("A hyper-realistic Café, 猫!", 77, 49407);
    assert_eq!(clip.decode(&tokens.ids), "a hyper - realistic café , 猫 !");
    assert_eq!(clip.decode(&[99_999, 320]), "a");
}

/// A vocabulary of a few words in a folder.
fn folder(files: &[(&str, serde_json::Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn open(files: &[(&str, serde_json::Value)]) -> Result<ClipTokenizer, String> {
    let folder = folder(files);
    ClipTokenizer::open(folder.path()).map_err(|error| error.to_string())
}

fn vocabulary() -> serde_json::Value {
    serde_json::json!({
        "!": 0, "a": 1, "b": 2, "a</w>": 3, "b</w>": 4, "!</w>": 5, "ab</w>": 6, "aab</w>": 7,
        "<|startoftext|>": 8, "<|endoftext|>": 9
    })
}

fn merges() -> serde_json::Value {
    "#version: 0.2\na b</w>\na ab</w>\n".into()
}

#[test]
fn a_folder_brings_its_own_vocabulary() {
    let clip = open(&[("vocab.json", vocabulary()), ("merges.txt", merges())]).unwrap();
    assert_eq!(clip.ids("AAB ab ba! z"), [7, 6, 2, 3, 5, 9]);
    assert_eq!((clip.begin(), clip.end(), clip.pad(), clip.count()), (8, 9, 9, 10));
    assert_eq!(clip.decode(&[8, 7, 2, 3, 9]), "aab ba");

    let whole = serde_json::json!({
        "added_tokens": [{ "id": 10, "content": "<MyToken>", "normalized": true }],
        "model": { "type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocabulary(),
            "merges": [["a", "b</w>"], ["a", "ab</w>"]] }
    });
    // It goes before the two files.
    let clip = open(&[("tokenizer.json", whole), ("vocab.json", "{}".into())]).unwrap();
    assert_eq!(clip.ids("aab<mytoken>ab<MyToken>"), [7, 10, 6, 10]);
    assert_eq!((clip.count(), clip.decode(&[10, 6])), (11, "<mytoken> ab".into()));
}

/// As transformers 5.24.0 reads the folders of Stable Diffusion 2: a special word that pads is found in prompts.
#[test]
fn files_beside_say_what_pads_and_what_is_special() {
    let config = serde_json::json!({ "pad_token": "<|endoftext|>", "bos_token": "<|startoftext|>" });
    let set = |text: &str| serde_json::json!({ "content": text, "normalized": true });
    let map = serde_json::json!({ "pad_token": "!", "eos_token": set("<|endoftext|>") });
    let files = [
        ("vocab.json", vocabulary()),
        ("merges.txt", merges()),
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", map),
        ("added_tokens.json", serde_json::json!({ "<MyToken>": 10 })),
    ];
    let clip = open(&files).unwrap();
    assert_eq!(clip.pad(), 0);
    assert_eq!(clip.ids("ab!<|EndOfText|><|StartOfText|> <mytoken>")[..3], [6, 0, 9]);
    assert_eq!(clip.ids("<MYTOKEN>a"), [10, 3]);
    // With a list of added words in the settings, the older files say nothing.
    let mut newer = files.to_vec();
    newer[2].1["added_tokens_decoder"] =
        serde_json::json!({ "11": { "content": "<new>", "normalized": false } });
    let clip = open(&newer).unwrap();
    assert_eq!((clip.pad(), clip.ids("a!<new>"), clip.count()), (9, vec![3, 5, 11], 12));
}

#[test]
fn files_that_are_no_tokenizer_are_refused_by_name() {
    let refused = |files: &[(&str, serde_json::Value)], words: &[&str]| {
        let told = open(files).unwrap_err();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    };
    refused(&[], &["vocab.json"]);
    refused(&[("vocab.json", vocabulary())], &["merges.txt"]);
    refused(
        &[("vocab.json", vocabulary()), ("merges.txt", "a b</w>\nab\n".into())],
        &["merges.txt", "line 2", "`ab`"],
    );
    refused(&[("vocab.json", vocabulary()), ("merges.txt", "b b</w>\n".into())], &["no token `bb</w>`"]);
    let mut without = vocabulary();
    without.as_object_mut().unwrap().remove("<|endoftext|>");
    refused(&[("vocab.json", without), ("merges.txt", merges())], &["<|endoftext|>", "eos_token"]);
    let mut large = vocabulary();
    large["c"] = 4_000_000_000u32.into();
    refused(&[("vocab.json", large), ("merges.txt", merges())], &["`c`", "4000000000"]);
    let other =
        |kind: &str| serde_json::json!({ "model": { "type": kind, "vocab": { "a": 0 }, "merges": [] } });
    refused(&[("tokenizer.json", other("WordPiece"))], &["WordPiece", "byte-pair"]);
    refused(&[("tokenizer.json", other("BPE"))], &["no tokenizer of CLIP's", "</w>"]);
    refused(&[("tokenizer.json", "nonsense".into())], &["tokenizer.json"]);
    assert!(!ClipTokenizer::is_in(Path::new("/")));
}
