//! Recipes that are read, and recipes that must be refused, each with the message it must give.

use serde_json::json;

use super::*;

fn refusal(text: &str) -> String {
    Recipe::from_text(text).unwrap_err().to_string()
}

#[test]
fn every_section_is_read_from_yaml_and_from_json_alike() {
    let text = "
base:
  source: https://u:p@example.org/base.img.xz?token=1
  size: 1000
  checksum: {algo: sha256, value: 'BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD'}
output: {size: 1048576}
oci_images: []
files:
  - {to: /data/a/b.txt, content: hello}
  - {to: /data/b.bin, content: 'aGVs bG8=', via: base64, size: 5}
  - {to: /data, url: file:///srv/site.tar.zst, via: zsttar, size: 77}
write_config: true
offspot: {country: NO}
";
    let recipe = Recipe::from_text(text).unwrap();
    let base = recipe.base.clone().unwrap();
    assert_eq!((base.packing, base.size), (Packing::Xz, Some(1000)));
    assert_eq!(base.source.shown(), "https://example.org/base.img.xz");
    assert_eq!(recipe.output_size, Some(1_048_576));
    let files: Vec<_> = recipe.files.iter().map(|f| (f.to.as_str(), f.content.clone(), f.via)).collect();
    let inline = |text: &str| Content::Inline(text.as_bytes().to_vec());
    let archive = Content::At(Source::File("/srv/site.tar.zst".into()));
    assert_eq!(
        files,
        [
            ("/a/b.txt", inline("hello"), Via::Direct),
            ("/b.bin", inline("hello"), Via::Direct),
            ("", archive, Via::Archive(Form::Tar(Packing::Zstd))),
        ]
    );
    assert_eq!(recipe.offspot, Some(json!({"country": "NO"})));
    let value: serde_json::Value = serde_json::from_str(&recipe.value().to_string()).unwrap();
    assert_eq!(Recipe::from_value(&value).unwrap(), recipe);
    assert_eq!(Recipe::from_text(&value.to_string()).unwrap(), recipe);
}

#[test]
fn an_empty_recipe_is_an_empty_card() {
    for text in ["{}", "base: none", "base: null\nfiles: []\noutput: {size: auto}", "offspot: null"] {
        let recipe = Recipe::from_text(text).unwrap();
        assert_eq!((recipe.base, recipe.files.len(), recipe.output_size), (None, 0, None), "{text}");
    }
}

#[test]
fn content_does_not_change_the_stable_digest_and_settings_do() {
    let digests = |text: &str| {
        let recipe = Recipe::from_text(text).unwrap();
        (recipe.digest(), recipe.stable_digest())
    };
    let one = digests("{files: [{to: /data/a, content: x}], offspot: {b: 1, a: 2}}");
    assert_eq!(digests("{offspot: {a: 2, b: 1}, files: [{content: x, to: /data/a}]}"), one);
    let other_content = digests("{files: [{to: /data/a, content: y}], offspot: {b: 1, a: 2}}");
    assert!(other_content.0 != one.0 && other_content.1 == one.1);
    assert_ne!(digests("{files: [{to: /data/a, content: x}], offspot: {b: 1}}").1, one.1);
}

#[test]
fn the_public_recipe_has_no_secrets_of_addresses_and_is_else_the_same() {
    let text = |secret: &str, key: &str| {
        format!(
            "base: 'https://{secret}h/a.img{key}'\nwrite_config: true\nfiles:\n\
             - {{to: /data/a, url: 'https://{secret}h/a{key}', checksum: {{algo: md5, kind: url, \
             value: 'https://{secret}h/sum{key}'}}}}\n- {{to: /data/b, content: 'see https://u:p@h/?k'}}\n"
        )
    };
    let public = Recipe::from_text(&text("user:secret@", "?key=secret")).unwrap().public_value();
    assert_eq!(&public, Recipe::from_text(&text("", "")).unwrap().value());
    let base = Recipe::from_text("base: {source: 'http://u:p@h/a.img', size: 512}").unwrap().public_value();
    assert_eq!(base, json!({"base": {"source": "http://h/a.img", "size": 512}}));
}

#[test]
fn unknown_keys_are_named_with_their_line() {
    let table = [
        ("fils: []", 1, "fils"),
        ("base:\n  source: a.img\n  checksums: x", 3, "checksums"),
        ("files:\n  - to: /data/a\n    contents: x", 3, "contents"),
        ("write_config: true\n\n\noutput:\n  sizes: 3", 5, "sizes"),
        ("files:\n  - to: /data/a\n    content: x\n    checksum: {algo: a, value: b, sort: c}", 4, "sort"),
    ];
    for (text, line, key) in table {
        let message = refusal(text);
        assert!(message.starts_with(&format!("line {line}")) && message.contains(key), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let message = Recipe::from_value(&json!({"fils": []})).unwrap_err().to_string();
    assert!(message.starts_with("unknown field `fils`"), "{message}");
}

#[test]
fn values_of_the_wrong_kind_are_refused_with_their_line() {
    for (text, line) in [
        ("files: 3", 1),
        ("write_config: true\noutput: {size: big}", 2),
        ("output: {size: -1}", 1),
        ("a: [", 1),
        ("files:\n - to: /data/a\n   to: /data/b", 3),
        ("base: [1]", 1),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(&format!("line {line}")), "{text:?}: {message}");
    }
}

#[test]
fn thirty_recipes_that_cannot_be_are_each_refused_with_their_own_message() {
    let file = |rest: &str| format!("files: [{{{rest}}}]");
    let table = [
        (
            "base: http://example.org/base.iso".to_owned(),
            "base.source: \"http://example.org/base.iso\" is none of .img .img.xz .img.zst .img.gz",
        ),
        (
            "base: {source: a.img, rootfs_size: 5}".into(),
            "base.rootfs_size: 5 is not a multiple of 4096 bytes",
        ),
        (
            "base: ftp://example.org/a.img".into(),
            "base.source: \"ftp://example.org/a.img\" is neither http(s):// nor file:///",
        ),
        ("base: 'https://'".into(), "base.source: \"https://\" is neither http(s):// nor file:///"),
        (
            "oci_images: [{ident: X}]".into(),
            "oci_images[0].ident: \"X\" has no repository of lower-case letters, digits and . _ -",
        ),
        (
            "oci_images: [{ident: x, platform: arm64}]".into(),
            "oci_images[0].platform: \"arm64\" is not of the form linux/arm64 or linux/arm/v7",
        ),
        ("output: {size: 1000}".into(), "output.size: 1000 is not a multiple of 512 bytes"),
        ("offspot: text".into(), "offspot: must be a map of settings"),
        (
            "output: {size: 2199023256064}".into(),
            "output.size: 2199023256064 bytes are more than an image can have (2199023255552)",
        ),
        (
            "base: {source: a.img, checksum: {algo: sha512, value: ab}}".into(),
            "base.checksum: value is not 128 hex digits of sha512",
        ),
        (file("to: /etc/x, content: a"), "files[0].to: \"/etc/x\" is not below /data"),
        (file("to: /database, content: a"), "files[0].to: \"/database\" is not below /data"),
        (file("to: data/x, content: a"), "files[0].to: \"data/x\" is not below /data"),
        (file("to: /data, content: a"), "files[0].to: \"/data\" is not absolute"),
        (file("to: /data/, content: a"), "files[0].to: \"/data/\" has an empty name"),
        (file("to: /data/../x, content: a"), "files[0].to: \"/data/../x\" has `.` or `..` in it"),
        (file("to: /data/a//b, content: a"), "files[0].to: \"/data/a//b\" has an empty name"),
        (file("to: \"/data/a\\nb\", content: a"), "files[0].to: \"/data/a\\nb\" has a control character"),
        (file("to: /data/x"), "files[0]: has neither `url` nor `content`, one is wanted"),
        (file("to: /data/x, content: a, url: b"), "files[0]: has both `url` and `content`, one is wanted"),
        (file("to: /data/x, content: a, via: zip"), "files[0]: via zip wants a `url`, not content"),
        (
            file("to: /data/x, url: a, via: rar"),
            "files[0]: via \"rar\" is none of direct base64 zip tar gztar bztar xztar zsttar",
        ),
        (
            file("to: /data/x, url: 'http://u:p@h/a?b', via: base64"),
            "files[0]: via base64 wants `content`, not a url (http://h/a)",
        ),
        (
            file("to: /data/x, content: '%%%', via: base64"),
            "files[0].content: not base64: Invalid symbol 37, offset 0.",
        ),
        (file("to: /data/x, content: abc, size: 4"), "files[0]: size is 4, its content has 3 bytes"),
        (
            file("to: /data/x, url: a.tgz, via: gztar, size: 18446744073709551615"),
            "files[0].size: 18446744073709551615 bytes are more than an image can have (2199023255552)",
        ),
        (file("to: /data/x, url: ''"), "files[0].url: is empty"),
        (
            file("to: /data/x, url: 'http://u:secret@h/a<b>?key=secret'"),
            "files[0].url: \"http://h/a<b>\" is not an address",
        ),
        (
            file("to: /data/x, url: 'http://a b/'"),
            "files[0].url: \"http://a b/\" has a space or control character",
        ),
        (
            file("to: /data/x, url: file://relative"),
            "files[0].url: \"file://relative\" is neither http(s):// nor file:///",
        ),
        (
            file("to: /data/x, content: a, checksum: {algo: crc32, value: x}"),
            "files[0].checksum: algo \"crc32\" is none of md5 sha1 sha224 sha256 sha384 sha512 blake3",
        ),
        (
            file("to: /data/x, content: a, checksum: {algo: sha256, value: x}"),
            "files[0].checksum: value is not 64 hex digits of sha256",
        ),
        (
            file("to: /data/x, content: a, checksum: {algo: sha256, value: x, kind: gpg}"),
            "files[0].checksum: kind \"gpg\" is none of digest url",
        ),
        (
            file("to: /data/x, url: a, checksum: {algo: sha256, value: 'ftp://h/SUMS', kind: url}"),
            "files[0].checksum.value: \"ftp://h/SUMS\" is neither http(s):// nor file:///",
        ),
    ];
    assert!(table.len() >= 30);
    for (text, message) in table {
        assert_eq!(refusal(&text), message, "{text}");
    }
    assert_eq!(
        refusal(&" ".repeat(MAX_RECIPE_SIZE + 1)),
        "the recipe has 8388609 bytes, at most 8388608 are read"
    );
    let long = file(&format!("to: /data/{}, content: a", "x".repeat(256)));
    assert!(refusal(&long).ends_with("has a name of more than 255 bytes"));
}
