//! Who gets in, who gets what, and how soon a disabled account is out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::common::*;
use cardshop_protocol::token::{Claims, Role};

const ROLES: [Role; 7] = [
    Role::Staff,
    Role::Manager,
    Role::Operator,
    Role::Creator,
    Role::Appliance,
    Role::Integrator,
    Role::Scheduler,
];

#[test]
fn each_role_sees_the_images_of_its_channels_and_staff_and_scheduler_all() {
    let shop = Shop::open();
    let (bytes, index) = solid(100_000, 1);
    let id = shop.put(&bytes, &index);
    for role in ROLES {
        let everywhere = matches!(role, Role::Staff | Role::Scheduler);
        for (channel, expected) in [("demo", true), ("other", everywhere)] {
            let client = shop.client(shop.token(role, channel, None));
            for path in [format!("/images/{id}"), format!("/images/{id}/index")] {
                let answer = client.get(&path);
                assert_eq!(answer.status, if expected { 200 } else { 404 }, "{role:?} of {channel}: {path}");
                assert!(expected || answer.code() == "not_found");
            }
            let listed = client.get("/images").json()["items"].as_array().unwrap().len();
            assert_eq!(listed, usize::from(expected), "{role:?} of {channel}");
        }
    }
}

#[test]
fn only_the_creator_of_the_task_gets_at_its_upload() {
    let shop = Shop::open();
    let (mine, other) = (task(), task());
    let place = shop.creator(mine).create("image", mine, None, 1000).header("location");
    let refused = shop.creator(mine).create("image", other, None, 1000);
    assert_eq!((refused.status, refused.code().as_str()), (403, "other_task"));
    for (client, status) in [(shop.creator(other), 404), (Client::new(shop.address(), None), 401)] {
        for method in ["HEAD", "PATCH", "DELETE"] {
            let answer = client.tus(method, &place, &[("Upload-Offset", "0"), OFFSET_BYTES], b"x");
            assert_eq!(answer.status, status, "{method}");
        }
    }
    for role in ROLES {
        let scope = (role != Role::Creator).then(|| Claims::upload_scope(mine));
        let client = shop.client(shop.token(role, "demo", scope));
        let answer = client.create("image", mine, None, 1000);
        assert_eq!((answer.status, answer.code().as_str()), (403, "not_an_uploader"), "{role:?}");
        assert_eq!(client.tus("DELETE", &place, &[], &[]).status, 403, "{role:?}");
    }
    assert_eq!(shop.creator(mine).offset(&place), 0);
}

#[test]
fn a_token_comes_as_bearer_or_as_password_and_a_wrong_one_is_401_with_one_text() {
    let shop = Shop::open();
    let (bytes, index) = solid(1000, 2);
    let path = format!("/images/{}", shop.put(&bytes, &index));
    let token = shop.token(Role::Appliance, "demo", None);
    let nobody = Client::new(shop.address(), None);
    let with = |header: String| nobody.send("GET", &path, &[("Authorization", &header)], &[]);
    assert_eq!(with(format!("Bearer {token}")).status, 200);
    assert_eq!(with(format!("Basic {}", encode(format!("anybody:{token}")))).status, 200);
    let none = nobody.get(&path);
    assert_eq!((none.status, none.code().as_str()), (401, "not_logged_in"));
    assert_eq!(none.header("www-authenticate"), "Bearer realm=\"cardshop\"", "and one for Basic before it");
    let expired = shop.token_from(Role::Appliance, "demo", None, 1_000_000);
    let forged = format!("{}x", &token[..token.len() - 1]);
    let texts: Vec<_> = [expired, forged, "x".into(), "x".repeat(5000)]
        .into_iter()
        .map(|bad| {
            let answer = with(format!("Bearer {bad}"));
            assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"));
            answer.text()
        })
        .collect();
    assert!(texts.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn a_public_image_needs_no_token() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(1000, 3);
    let id = shop.put(&bytes, &index);
    let record = shop.data().join(format!("{id}.json"));
    shop.stop();
    let text = std::fs::read_to_string(&record).unwrap().replace("\"public\":false", "\"public\":true");
    std::fs::write(&record, text).unwrap();
    shop.start();
    let nobody = Client::new(shop.address(), None);
    assert!(nobody.get(&format!("/images/{id}")).body == bytes);
    assert_eq!(nobody.get("/images").status, 401);
}

#[test]
fn a_disabled_account_is_out_within_five_seconds_in_the_middle_of_a_slow_download() {
    let shop = Shop::open();
    let (bytes, index) = solid(32 << 20, 4);
    let id = shop.put(&bytes, &index);
    let token = shop.token(Role::Appliance, "demo", None);
    let mut socket = TcpStream::connect(shop.address()).unwrap();
    write!(socket, "GET /images/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut some = [0; 4096];
    socket.read_exact(&mut some).unwrap();

    shop.revoke("appliance-demo");
    let began = Instant::now();
    // It reads nothing more, so that the server cannot send: it must not wait until it can.
    let error = loop {
        if let Some(error) = socket.take_error().unwrap() {
            break error;
        }
        assert!(began.elapsed() < Duration::from_secs(5), "still connected after 5 s");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    // Only what was on its way is here.
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    let got = some.len() + rest.len();
    assert!(got < bytes.len());
    assert_eq!(shop.client(token).get(&format!("/images/{id}")).code(), "invalid_token");
    let (bytes, index) = solid(1000, 5);
    shop.put(&bytes, &index); // others go on
}

#[test]
fn metadata_that_would_lead_out_of_the_folder_is_refused_before_anything_is_made() {
    let shop = Shop::open();
    let task = task();
    let creator = shop.creator(task);
    for (key, value) in [
        ("task", "../../etc/passwd"),
        ("task", "/etc/passwd"),
        ("image", "../../../etc/passwd"),
        ("kind", "../image"),
        ("kind", "archive"),
        ("name", "a\nb"),
    ] {
        let mut pairs = vec![("kind", "image".to_owned()), ("task", task.to_string())];
        pairs.retain(|(k, _)| *k != key);
        pairs.push((key, value.to_owned()));
        let header: Vec<_> = pairs.iter().map(|(k, v)| format!("{k} {}", encode(v))).collect();
        let header = header.join(",");
        let answer =
            creator.tus("POST", "/files", &[("Upload-Length", "10"), ("Upload-Metadata", &header)], &[]);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_metadata"), "{key}={value:?}");
    }
    let long = format!("kind {}", encode("x".repeat(5000)));
    let answer = creator.tus("POST", "/files", &[("Upload-Length", "10"), ("Upload-Metadata", &long)], &[]);
    assert_eq!(answer.code(), "metadata_too_long");
    assert_eq!(std::fs::read_dir(shop.data().join("uploads")).unwrap().count(), 0);
    for path in ["/images/..%2f..%2fetc%2fpasswd", "/images/%2e%2e", "/files/..%2findex", "/images/index.key"]
    {
        assert_eq!(creator.send("GET", path, &[("Tus-Resumable", "1.0.0")], &[]).status / 100, 4, "{path}");
    }
    // A name full of slashes is a name.
    let odd = format!(
        "{},name {}",
        metadata("image", task, None).replace(&format!(",name {}", encode("Library")), ""),
        encode("../../x")
    );
    let answer = creator.tus("POST", "/files", &[("Upload-Length", "10"), ("Upload-Metadata", &odd)], &[]);
    assert_eq!(answer.status, 201, "{}", answer.text());
}
