//! Tokenizers with more tokens than the weights have rows, and the token that stands for the picture.

use super::*;

/// Adds words to a tokenizer, with ids from its last one on.
fn with_words(tokenizer: &mut Value, words: &[&str]) -> Vec<u32> {
    let base = tokenizer["model"]["vocab"].as_object().unwrap().len();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let ids = added
        .iter()
        .map(|token| token["id"].as_u64().unwrap() as usize + 1);
    let next = ids.max().unwrap().max(base);
    for (index, word) in words.iter().enumerate() {
        added.push(json!({
            "id": next + index, "content": word, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }));
    }
    (next as u32..).take(words.len()).collect()
}

#[test]
fn words_without_a_row_are_read_as_ordinary_text() {
    let plain = Checkpoint::copy_of(NATIVE);
    let rows = Florence2Config::load(plain.path()).unwrap().text.vocab_size;
    let expected = |text: &str| {
        // What stands in the text, split where a token cannot reach across.
        let tokenizer = Tokenizer::open(&data::path(
            "parity/21-original-own-settings/tokenizer.json",
        ));
        tokenizer.unwrap().encode(text).unwrap()
    };
    let longer = Checkpoint::copy_of(NATIVE);
    let mut ids = Vec::new();
    longer.edit("tokenizer.json", |tokenizer| {
        // More words than the matrix has spare rows, so that the last of them have none.
        let spare: Vec<String> = (0..80).map(|word| format!("<W{word}>")).collect();
        let spare: Vec<&str> = spare.iter().map(String::as_str).collect();
        ids = with_words(tokenizer, &spare);
    });
    let processor = Processor::load_for(longer.path(), rows).unwrap();
    let (inside, beyond) = (ids[0], ids[79]);
    assert!((inside as usize) < rows && beyond as usize >= rows);
    assert!(
        processor
            .input_ids("a <W0> b", 100)
            .unwrap()
            .contains(&inside)
    );
    let text = processor.input_ids("a <W79> b <image> c", 100).unwrap();
    assert_eq!(text, expected("a <W79> b <image> c"));
    assert!(text.iter().all(|id| (*id as usize) < rows));
    // What the model writes is written out all the same.
    assert_eq!(
        processor.decode(&[0, inside, beyond, 2]).unwrap(),
        "<s><W0><W79></s>"
    );
    let words: Vec<&str> = processor.tokenizer().words_without_rows().collect();
    assert!(words.contains(&"<W79>") && !words.contains(&"<W0>") && !words.contains(&"<image>"));

    let (code, said) = run(&longer, &["--prompt", "<W79> what is it? <image>"]);
    assert_eq!(code, Some(0), "{said}");
    assert_names(&said, &["no row"]);
}

#[test]
fn the_pictures_own_token_is_text_when_a_caller_writes_it() {
    for layout in ["original", "native"] {
        let file = data::path(&format!("tokenizer/{layout}/tokenizer.json"));
        let tokenizer = Tokenizer::open(&file).unwrap();
        let ids = tokenizer.encode("the <image> tag").unwrap();
        // `<`, `image`, `>` between the words: 28696, 20094, 15698 of the published vocabulary.
        assert_eq!(ids, [0, 627, 28696, 20094, 15698, 6694, 2], "{layout}");
    }
    let native = Tokenizer::open(&data::path("tokenizer/native/tokenizer.json")).unwrap();
    let ids = [0, 51289, 50269, 2];
    let text = native.decode(&ids).unwrap();
    assert_eq!(text, "<s><image><loc_0></s>");
    assert_eq!(native.token_ends(&ids, &text).unwrap(), [3, 10, 17, 21]);
}

#[test]
fn a_tokenizer_whose_own_tokens_have_no_row_is_refused() {
    let checkpoint = Checkpoint::copy_of(NATIVE);
    let whole = Processor::load(checkpoint.path()).unwrap();
    let last = whole.tokenizer().location_token_id(999).unwrap() as usize;
    for (rows, is_fit) in [
        (last + 1025, true),
        (last + 1, false),
        (last, false),
        (100, false),
    ] {
        match Processor::load_for(checkpoint.path(), rows) {
            Ok(_) => assert!(is_fit, "{rows}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!is_fit, "{error}");
                assert_names(&error, &["tokenizer.json", "has the id", "rows"]);
            }
        }
    }
}
