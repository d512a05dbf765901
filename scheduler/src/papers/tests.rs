//! Papers as a printer and a scanner see them: drawn by poppler, read by zbar; and that no text harms them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cardshop_protocol::api::{CardRecord, SlotView};
use cardshop_protocol::ids::{ApplianceId, ImageId, ObjectId, SlotId};
use cardshop_protocol::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::canvas::Area;
use super::*;
use crate::core::order::tests::order as plain_order;
use crate::core::order::{OrderImage, OrderKind, OrderedMedia, Shipment};
use crate::core::views::{CardView, OrderView};

/// Dots of an inch of a common label printer: what is read at this is read on paper.
const DPI: &str = "203";

fn now() -> Timestamp {
    "2026-11-28T12:00:00Z".parse().unwrap()
}

fn order() -> OrderView {
    let mut order = plain_order(OrderKind::Physical, 12);
    order.id = ObjectId::from_parts(1_790_000_000_000, 77);
    order.name = "École de Kita, 2ᵉ lot".into();
    order.media =
        Some(OrderedMedia { id: ObjectId::from_parts(1, 3), name: "32 GB".into(), usable_bytes: 1 });
    order.image = Some(OrderImage { id: ImageId([0xab; 32]), size: 15_500_000_000, data_bytes: 1 });
    order.recipient = json!({"name": "Aïssata Traoré", "address": "12 rue de l’Étang\nBP 34", "city": "Kita",
        "country": "Mali", "phone": "+223 20 22 33 44"});
    let at = "2026-11-03T08:00:00Z".parse().unwrap();
    order.shipments =
        vec![Shipment { count: 5, tracking: Some("RR123456785FR".into()), at, by: "ada".into() }];
    OrderView::new(&order, now())
}

fn sender() -> Sender {
    Sender {
        name: "Offspot Œuvre".into(),
        address: "1 Example Street\nLausanne".into(),
        email: "shop@example.org".into(),
    }
}

fn recipe() -> Value {
    json!({"configuration": {"name": "École de Kita", "ssid": "Kita", "wifi_password": "correct horse",
        "content": [{"name": "wikipedia_fr_all", "flavour": "maxi"}], "apps": [{"name": "kiwix", "image": "x"}]}})
}

fn card(copy: u32) -> CardView {
    let record = CardRecord {
        uid: ObjectId::from_parts(1_790_000_000_000, u128::from(copy) + 1000),
        order: order().id,
        copy,
        total: 12,
        lease: ObjectId::from_parts(1, 4),
        image: ImageId([0xab; 32]),
        card_size: 1,
        cid: None,
        appliance: ApplianceId([1; 8]),
        slot: SlotId::numbered(1),
        reader: String::new(),
        written_bytes: 1,
        verified_bytes: 1,
        write_bps: 1,
        verify_bps: 1,
        started: now(),
        finished: now(),
        passport: None,
    };
    CardView { id: record.uid, spare: false, channel: None, record }
}

fn slot(name: &str) -> SlotView {
    let state = json!({"boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "off", "colour": "none"},
        "since": "2026-11-23T00:00:00Z"});
    let appliance = ApplianceId([0xa5; 8]);
    SlotView {
        id: format!("{appliance}/s01"),
        appliance,
        label: "bench one".into(),
        slot: SlotId::numbered(1),
        name: name.into(),
        state: serde_json::from_value(state).unwrap(),
        progress: None,
        online: true,
    }
}

fn slip_of(order: &OrderView, recipe: &Value, language: Language) -> Paper {
    slip(&Slip { order, sender: &sender(), recipe: Some(recipe), now: now() }, language).unwrap()
}

/// A paper in a file, with what stock tools say of it.
pub(crate) struct Printed {
    folder: tempfile::TempDir,
}

impl Printed {
    /// `None` where the tools are missing.
    pub(crate) fn new(paper: &Paper) -> Option<Self> {
        for tool in ["pdftoppm", "zbarimg"] {
            if Command::new(tool).arg("--help").output().is_err() {
                println!("SKIPPED: {tool} is not installed (packages poppler-utils and zbar-tools)");
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("paper.pdf"), &paper.bytes).unwrap();
        Some(Self { folder })
    }

    fn run(&self, tool: &str, words: &[&str]) -> String {
        let output = Command::new(tool).args(words).current_dir(self.folder.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.is_empty(), "{tool} {words:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All text, each run of white space as one space.
    pub(crate) fn text(&self) -> String {
        let text = self.run("pdftotext", &["-enc", "UTF-8", "paper.pdf", "-"]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Count and size of the pages, points.
    fn pages(&self) -> (usize, f32, f32) {
        let told = self.run("pdfinfo", &["paper.pdf"]);
        let field = |name: &str| told.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let size = field("Page size:");
        let mut numbers = size.split(' ').filter_map(|word| word.parse::<f32>().ok());
        (field("Pages:").parse().unwrap(), numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// The codes on all pages, as a scanner reads them.
    fn codes(&self) -> BTreeSet<String> {
        self.codes_of(DPI, &[])
    }

    /// The codes in a part of a page.
    fn codes_within(&self, page: u32, area: Area) -> BTreeSet<String> {
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "png") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let page = page.to_string();
        let dots = |mm: f32| ((mm * DPI.parse::<f32>().unwrap() / 25.4) as u32).to_string();
        let [x, y, width, height] = [area.x, area.y, area.width, area.height].map(dots);
        self.codes_of(DPI, &["-f", &page, "-l", &page, "-x", &x, "-y", &y, "-W", &width, "-H", &height])
    }

    fn codes_of(&self, dpi: &str, part: &[&str]) -> BTreeSet<String> {
        let mut words = vec!["-r", dpi, "-gray", "-png"];
        words.extend(part);
        words.extend(["paper.pdf", "page"]);
        self.run("pdftoppm", &words);
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| Path::new(name).extension().is_some_and(|e| e == "png"))
            .collect();
        names.sort();
        let mut words = vec!["--nodbus", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"];
        words.extend(names.iter().map(String::as_str));
        self.run("zbarimg", &words).lines().map(str::to_lowercase).collect()
    }

    /// Where a word begins: page, left, top, in millimetres.
    fn place(&self, word: &str) -> (usize, f32, f32) {
        let boxes = self.run("pdftotext", &["-bbox", "paper.pdf", "-"]);
        let mut page = 0;
        for line in boxes.lines().map(str::trim) {
            page += usize::from(line.starts_with("<page "));
            if line.ends_with(&format!(">{word}</word>")) {
                let field = |name: &str| {
                    let value = line.split(&format!("{name}=\"")).nth(1).unwrap().split('"').next().unwrap();
                    value.parse::<f32>().unwrap() * 25.4 / 72.0
                };
                return (page, field("xMin"), field("yMin"));
            }
        }
        panic!("{word} is not in {boxes}");
    }
}

#[test]
fn a_slip_says_all_there_is_to_say_in_both_languages_and_no_password() {
    let english = [
        "Delivery slip",
        "From",
        "To",
        "Order",
        "28 November 2026",
        "12 cards",
        "15.5 GB",
        "5 cards on 3 November 2026, tracking code RR123456785FR",
        "On each card",
        "Kita (with a password)",
    ];
    let french = [
        "Bordereau d’expédition",
        "Expéditeur",
        "Destinataire",
        "Commande",
        "28 novembre 2026",
        "12 cartes",
        "15,5 Go",
        "5 cartes le 3 novembre 2026, numéro de suivi RR123456785FR",
        "Sur chaque carte",
        "Kita (avec mot de passe)",
    ];
    let order = order();
    let id = order.id.to_string();
    let both = [
        "École de Kita, 2ᵉ lot",
        "Offspot Œuvre",
        "1 Example Street",
        "Lausanne",
        "shop@example.org",
        "Aïssata Traoré",
        "12 rue de l’Étang",
        "BP 34",
        "Mali",
        "+223 20 22 33 44",
        "32 GB",
        "abababababababab",
        "wikipedia_fr_all (maxi)",
        "kiwix",
        &id,
    ];
    for (language, words) in [(Language::English, english), (Language::French, french)] {
        let paper = slip_of(&order, &recipe(), language);
        assert!(paper.missing.is_empty(), "{:?}", paper.missing);
        let Some(printed) = Printed::new(&paper) else { return };
        let text = printed.text();
        for word in both.iter().chain(&words) {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        assert!(!text.contains("correct horse"), "{text}");
        let (pages, width, height) = printed.pages();
        assert_eq!((pages, (width * 25.4 / 72.0).round(), (height * 25.4 / 72.0).round()), (1, 210.0, 297.0));
        assert_eq!(printed.codes(), BTreeSet::from([id.clone()]));
    }
}

#[test]
fn a_paper_is_the_same_each_time_small_and_asks_not_to_be_scaled() {
    let paper = slip_of(&order(), &recipe(), Language::French);
    assert_eq!(paper, slip_of(&order(), &recipe(), Language::French));
    assert!(paper.bytes.len() < 60_000, "{} bytes: the fonts are not cut down", paper.bytes.len());
    let text = String::from_utf8_lossy(&paper.bytes);
    assert!(text.contains("/PrintScaling/None") || text.contains("/PrintScaling /None"));
}

/// A label for each copy, with a title of its own.
fn some_labels(count: u32) -> Vec<Label> {
    (1..=count)
        .map(|copy| {
            let order = OrderView { name: format!("Nr{copy}"), ..order() };
            Label::card(Some(&order), &card(copy), Language::English)
        })
        .collect()
}

#[test]
fn every_label_of_every_paper_is_read_by_a_scanner_and_says_what_it_is() {
    for format in Format::ALL.into_iter().filter(|format| format.ending() == "pdf") {
        let grid = format.grid();
        let count = grid.labels() + 2;
        let paper = labels(&some_labels(count), format, 1, "labels", Language::French).unwrap();
        let Some(printed) = Printed::new(&paper) else { return };
        let wanted: BTreeSet<String> = (1..=count).map(|copy| card(copy).id.to_string()).collect();
        let mut seen = printed.codes();
        // A reader of whole pages misses one here and there; a scanner sees one label at a time.
        for copy in (1..=count).filter(|copy| !seen.contains(&card(*copy).id.to_string())).collect::<Vec<_>>()
        {
            seen.extend(
                printed.codes_within((copy - 1) / grid.labels() + 1, grid.area((copy - 1) % grid.labels())),
            );
        }
        assert_eq!(seen, wanted, "{format:?}");
        let text = printed.text();
        for copy in 1..=count {
            assert!(text.contains(&format!("Nr{copy} copy {copy} of 12")), "{format:?}: {text}");
        }
        // A narrow label has the shorter wording.
        let found = |words: [&str; 2]| words.iter().map(|word| text.matches(word).count()).sum::<usize>();
        assert_eq!(text.matches("abababababab").count(), count as usize, "{format:?}: {text}");
        assert_eq!(found(["28 November 2026", "2026-11-28"]), count as usize, "{format:?}: {text}");
        let (pages, width, height) = printed.pages();
        assert_eq!(pages, count.div_ceil(grid.labels()) as usize);
        assert!(
            (width - grid.page.0 * 72.0 / 25.4).abs() < 0.1
                && (height - grid.page.1 * 72.0 / 25.4).abs() < 0.1
        );
    }
}

#[test]
fn a_half_used_sheet_is_gone_on_with_where_it_was_left() {
    for (format, start) in [(Format::L7160, 20), (Format::L7159, 24), (Format::L7651, 64), (Format::L7165, 5)]
    {
        let grid = format.grid();
        let paper = labels(&some_labels(5), format, start, "labels", Language::English).unwrap();
        let Some(printed) = Printed::new(&paper) else { return };
        for copy in 1..=5 {
            let number = start - 1 + copy - 1;
            let area = grid.area(number % grid.labels());
            let (page, x, y) = printed.place(&format!("Nr{copy}"));
            assert_eq!(page as u32, number / grid.labels() + 1, "{format:?} {copy}");
            let inside = x > area.x && x < area.x + area.width && y > area.y && y < area.y + area.height;
            assert!(inside, "{format:?} {copy}: {x} {y} and {area:?}");
        }
    }
    for start in [0, 22] {
        let refused = labels(&some_labels(1), Format::L7160, start, "", Language::English).unwrap_err();
        assert_eq!(refused.to_string(), format!("label {start} is not on a sheet of 21: start with 1 to 21"));
    }
    let many = vec![some_labels(1).remove(0); MAX_LABELS + 1];
    assert!(matches!(
        labels(&many, Format::Zpl, 1, "", Language::English),
        Err(PaperError::TooManyLabels { .. })
    ));
}

#[test]
fn labels_of_slots_carry_the_code_that_the_scanner_field_knows() {
    let paper =
        labels(&[Label::slot(&slot("Left 1"))], Format::Roll62, 1, "slots", Language::English).unwrap();
    let Some(printed) = Printed::new(&paper) else { return };
    assert_eq!(printed.codes(), BTreeSet::from([slot("").id]));
    let text = printed.text();
    assert!(text.contains("Left 1") && text.contains("bench one") && text.contains("s01"), "{text}");
}

/// Fields and commands of ZPL, as a printer takes them apart.
fn zpl_of(label: Label) -> (Vec<String>, Vec<String>) {
    let paper = labels(&[label], Format::Zpl, 1, "", Language::English).unwrap();
    let text = String::from_utf8(paper.bytes).unwrap();
    assert!(text.is_ascii() && !text.contains('~'), "{text}");
    let (mut commands, mut fields) = (Vec::new(), Vec::new());
    for command in text.split('^').skip(1) {
        commands.push(command.chars().take(2).collect());
        let Some(data) = command.strip_prefix("FD") else { continue };
        let (mut bytes, mut rest) = (Vec::new(), data.as_bytes());
        while let [first, tail @ ..] = rest {
            let hex = std::str::from_utf8(tail.get(..2).unwrap_or_default()).unwrap();
            match (first, u8::from_str_radix(hex, 16)) {
                (b'_', Ok(byte)) => {
                    bytes.push(byte);
                    rest = &tail[2..];
                }
                _ => {
                    bytes.push(*first);
                    rest = tail;
                }
            }
        }
        fields.push(String::from_utf8(bytes).unwrap());
    }
    (commands, fields)
}

#[test]
fn a_label_printer_gets_code_and_texts_and_nobody_s_text_is_a_command() {
    let named = |name: &str| {
        Label::card(Some(&OrderView { name: name.into(), ..order() }), &card(3), Language::French)
    };
    let (commands, fields) = zpl_of(named("Kita"));
    let upper = card(3).id.to_string().to_uppercase();
    assert_eq!(fields[..3], [format!("QA,{upper}"), "Kita".into(), "copie 3 sur 12".into()]);
    assert_eq!((fields[4].as_str(), fields[5].as_str()), ("abababababab", "2026-11-28"));
    for command in ["XA", "CI", "PW", "LL", "BQ", "XZ"] {
        assert!(commands.iter().any(|c| c == command), "{commands:?}");
    }
    for evil in ["^XZ", "~JA", "_5E\\&", "^FDé"] {
        let (same, fields) = zpl_of(named(evil));
        assert_eq!((&same, fields[1].as_str()), (&commands, evil));
    }
}

/// Texts that people should not type, and do.
fn hostile() -> Vec<String> {
    vec![
        String::new(),
        " ".into(),
        "x".repeat(20_000),
        "word ".repeat(5_000),
        "line\n".repeat(5_000),
        "\0\u{1}\u{7f}\u{85}\r\n\t\u{feff}\u{fffe}\u{202e}evil\u{2066}".into(),
        "مدرسة القرية 12 (الفصل)".into(),
        "בית ספר 3/4 abc".into(),
        "😀👩‍👩‍👧‍👦🇲🇱 學校 स्कूल โรงเรียน".into(),
        "^XA^FD~DG_00\\&^XZ".into(),
        ") Tj ET Q <</Type/Page>> endstream (".into(),
        format!("Z{}", "\u{301}\u{323}".repeat(3_000)),
        "ا\u{200c}ب\u{200d}".repeat(500),
        "ﬁﬂ {n} {text} {code".into(),
    ]
}

#[test]
fn hostile_texts_stay_on_their_page_and_say_what_is_missing() {
    for text in hostile() {
        let mut order = order();
        order.name = text.clone();
        order.recipient = json!({"name": text, "address": text, "country": text, "more": text});
        order.shipments[0].tracking = Some(text.clone());
        order.shipments = vec![order.shipments[0].clone(); 200];
        let recipe = json!({"configuration": {"name": text, "ssid": text, "language": text, "time_zone": text,
            "content": [{"name": text}, {"name": text, "flavour": text}], "apps": [{"name": text}]}});
        let sender = Sender { name: text.clone(), address: text.clone(), email: text.clone() };
        let drawn = slip(
            &Slip { order: &order, sender: &sender, recipe: Some(&recipe), now: now() },
            Language::French,
        );
        let slip = drawn.unwrap();
        let pair = [Label::card(Some(&order), &card(1), Language::English), Label::slot(&slot(&text))];
        labels(&pair, Format::Zpl, 1, &text, Language::English).unwrap();
        let sheet = labels(&pair, Format::L7165, 1, &text, Language::English).unwrap();
        let Some(printed) = Printed::new(&sheet) else { return };
        let both = BTreeSet::from([card(1).id.to_string(), slot("").id]);
        assert_eq!(printed.codes_of("100", &[]), both, "{text:.40}");
        let Some(printed) = Printed::new(&slip) else { return };
        assert_eq!(printed.pages().0, 1);
        assert_eq!(printed.codes_of("100", &[]), BTreeSet::from([order.id.to_string()]), "{text:.40}");
        assert_eq!(slip.missing.contains(&'學'), text.contains('學'));
        let told = printed.text();
        assert_eq!(told.contains("U+5B78"), text.contains('學'), "{told}");
        // What is drawn right to left is read in the order it was typed.
        if text.starts_with("בית") {
            assert!(told.contains("בית ספר"), "{told}");
        }
    }
}

/// A text that is in no paper by chance.
fn secret() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9]{12,40}"
}

proptest! {
    #[test]
    fn no_secret_of_a_configuration_or_recipe_is_told(secrets in prop::collection::vec(secret(), 8)) {
        let [wifi, admin, token, environment, file, settings, user, query] = &secrets[..] else { unreachable!() };
        let configuration = json!({"configuration": {
            "name": "Kita", "ssid": "Kita", "wifi_password": wifi,
            "admin": {"username": "admin", "password": admin},
            "base": {"source": format!("https://{user}:{token}@example.org/base.img.xz?key={query}#{query}"),
                     "checksum": {"algo": "sha256", "value": settings}},
            "catalogue": format!("https://{user}@example.org/{token}"),
            "branding": {"logo": file},
            "content": [{"name": "wikipedia"}],
            "apps": [{"name": "kiwix", "image": format!("{user}:{token}@example.org/kiwix"), "ports": [token],
                      "environment": {"PASSWORD": environment, environment.as_str(): "x"}, "volumes": [query]}],
            "later": {"password": settings},
        }});
        let recipe = json!({
            "base": format!("https://{user}:{token}@example.org?{query}"),
            "oci_images": [{"ident": "kiwix:1", "url": format!("https://{token}@example.org/{query}")},
                           {"ident": format!("{user}:{token}@example.org")}],
            "files": [{"to": "/data/a", "content": file}, {"to": "/data/b", "url": format!("https://x/?{query}")}],
            "offspot": {"ap": {"ssid": "Kita", "passphrase": wifi}, "containers": {"services": {"x": settings}}},
            "later": admin,
        });
        for value in [configuration, recipe] {
            for language in [Language::English, Language::French] {
                let told = contents(&value, language);
                prop_assert!(!told.is_empty());
                let told = format!("{told:?}");
                for secret in &secrets {
                    prop_assert!(!told.contains(secret.as_str()), "{secret} is in {told}");
                }
            }
        }
    }
}
