//! What happens to images that are here: public or not, how long they stay, links that end, what follows from them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use cardshop_protocol::ids::{ImageId, ObjectId};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;

use super::common::*;

/// Generous: on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn in_days(days: u64) -> Timestamp {
    Timestamp::from_system(SystemTime::now()) + Duration::from_secs(days * 24 * 3600)
}

fn put_link(shop: &Shop, id: ObjectId, image: ImageId, expires: Timestamp) -> Answer {
    let body = format!("{{\"image\":\"{image}\",\"name\":\"Library 2026\",\"expires\":\"{expires}\"}}");
    shop.staff().send("PUT", &format!("/links/{id}"), &[], body.as_bytes())
}

fn change(shop: &Shop, id: ImageId, body: &str) -> Answer {
    shop.staff().send("PATCH", &format!("/images/{id}"), &[], body.as_bytes())
}

#[test]
fn a_public_link_needs_no_login_ends_when_told_and_keeps_its_address_when_extended() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(3 * CHUNK + 5, 1);
    let image = shop.put(&bytes, &index);
    let id = ObjectId::from_parts(1, 1);
    let made = put_link(&shop, id, image, in_days(14));
    assert_eq!(made.status, 200, "{}", made.text());
    let path = made.json()["path"].as_str().unwrap().to_owned();
    assert!(path.starts_with("/p/") && path.ends_with("/Library-2026.img"), "{path}");
    shop.restart();
    let nobody = Client::new(shop.address(), None);
    assert!(nobody.get(&path).body == bytes);
    assert!(nobody.range(&path, "bytes=-7").body == bytes[bytes.len() - 7..]);
    assert_eq!(nobody.head(&path).header("etag"), format!("\"{image}\""));
    assert_eq!(nobody.get(&format!("/images/{image}")).status, 401, "only the link is public");
    let other = path.replace("/p/", "/p/0");
    assert_eq!(nobody.get(&other).code(), "not_found");

    assert_eq!(shop.staff().send("DELETE", &format!("/links/{id}"), &[], &[]).status, 204);
    let ended = nobody.get(&path);
    assert_eq!((ended.status, ended.code().as_str()), (410, "link_ended"));
    let again = put_link(&shop, id, image, in_days(14));
    assert_eq!(again.json()["path"], path.as_str());
    assert!(nobody.get(&path).body == bytes);
    assert_eq!(put_link(&shop, id, ImageId([9; 32]), in_days(1)).code(), "not_found");
}

#[test]
fn ending_a_link_breaks_off_a_download_through_it() {
    let shop = Shop::open();
    let (bytes, index) = solid(64 << 20, 2);
    let image = shop.put(&bytes, &index);
    let id = ObjectId::from_parts(1, 2);
    let path = put_link(&shop, id, image, in_days(1)).json()["path"].as_str().unwrap().to_owned();
    let mut socket = TcpStream::connect(shop.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    socket.read_exact(&mut [0; 100_000]).unwrap();
    shop.staff().send("DELETE", &format!("/links/{id}"), &[], &[]);
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest); // closed or reset
    assert!(rest.len() < bytes.len() - 100_000, "{} bytes came", rest.len());
}

#[test]
fn only_staff_and_the_scheduler_change_images_and_make_links() {
    let shop = Shop::open();
    let (bytes, index) = solid(1000, 3);
    let image = shop.put(&bytes, &index);
    let link = format!("/links/{}", ObjectId::from_parts(1, 3));
    for role in [Role::Manager, Role::Operator, Role::Creator, Role::Appliance, Role::Integrator] {
        let client = shop.client(shop.token(role, "demo", None));
        for (method, path) in [
            ("PATCH", format!("/images/{image}")),
            ("DELETE", format!("/images/{image}")),
            ("PUT", link.clone()),
        ] {
            let refused = client.send(method, &path, &[], b"{}");
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (403, "not_a_manager"),
                "{role:?} {method}"
            );
        }
        assert_eq!(client.get("/retention").status, 403);
    }
    let nobody = Client::new(shop.address(), None);
    assert_eq!(nobody.send("DELETE", &format!("/images/{image}"), &[], &[]).status, 401);
    let scheduler = shop.client(shop.token(Role::Scheduler, "", None));
    for body in ["", "[]", "{\"publik\":true}", &"x".repeat(100_000)] {
        let refused = scheduler.send("PATCH", &format!("/images/{image}"), &[], body.as_bytes());
        assert_eq!(refused.code(), "bad_body");
    }
    assert_eq!(scheduler.send("DELETE", &format!("/images/{image}"), &[], &[]).status, 204);
    assert_eq!(scheduler.send("DELETE", &format!("/images/{image}"), &[], &[]).status, 404);
}

#[test]
fn what_is_made_public_needs_no_token_until_it_is_private_again() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(2 * CHUNK, 4);
    let image = shop.put(&bytes, &index);
    assert_eq!(change(&shop, image, "{\"public\":true}").json()["public"], true);
    shop.restart();
    let nobody = Client::new(shop.address(), None);
    assert!(nobody.get(&format!("/images/{image}")).body == bytes);
    assert_eq!(change(&shop, image, "{\"public\":false}").json()["public"], false);
    assert_eq!(nobody.get(&format!("/images/{image}")).status, 401);
}

#[test]
fn a_dry_run_says_what_would_go_and_a_link_keeps_its_image() {
    let shop = Shop::open();
    let images: Vec<ImageId> =
        (10..13).map(|seed| solid(4 * CHUNK, seed)).map(|(b, i)| shop.put(&b, &i)).collect();
    for image in &images[..2] {
        let until = format!("{{\"keep_until\":\"{}\"}}", in_days(2));
        assert_eq!(change(&shop, *image, &until).status, 200);
    }
    put_link(&shop, ObjectId::from_parts(1, 4), images[1], in_days(10));
    let due = |days: u64| {
        let answer = shop.staff().get(&format!("/retention?at={}", in_days(days))).json();
        let items = answer["items"].as_array().unwrap();
        let ids: Vec<String> = items.iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect();
        (ids, answer["freed_bytes"].as_u64().unwrap())
    };
    assert_eq!(due(1), (vec![], 0));
    let (ids, freed) = due(3);
    assert_eq!(ids, [images[0].to_string()]);
    assert!(freed >= 4 * CHUNK as u64, "{freed}");
    assert_eq!(due(11).0.len(), 2);
    change(&shop, images[0], "{\"keep_until\":null}");
    assert_eq!(due(11).0, [images[1].to_string()], "without an end it stays");
    assert_eq!(shop.staff().get("/images").json()["items"].as_array().unwrap().len(), 3, "nothing has gone");
}

#[test]
fn what_leaves_out_an_older_images_chunks_is_named_in_runs() {
    let shop = Shop::open();
    let (mut bytes, index) = solid(10 * CHUNK, 5);
    let older = shop.put(&bytes, &index);
    bytes[2 * CHUNK] ^= 1;
    bytes[3 * CHUNK] ^= 1;
    bytes[9 * CHUNK] ^= 1;
    let extents = index.extents().to_vec();
    let index = index_of(&bytes, extents);
    let image = shop.put(&bytes, &index);
    let client = shop.client(shop.token(Role::Appliance, "demo", None));
    let answer = client.get(&format!("/images/{image}/chunks?have={older}")).json();
    assert_eq!(answer["missing"], serde_json::json!([[2, 2], [9, 1]]));
    assert_eq!(answer["bytes"], 3 * CHUNK);
    assert_eq!(client.get(&format!("/images/{image}/chunks")).code(), "bad_query");
    let stranger = shop.client(shop.token(Role::Appliance, "other", None));
    assert_eq!(stranger.get(&format!("/images/{image}/chunks?have={older}")).status, 404);
}

#[test]
fn a_torrent_is_of_public_images_only_and_goes_with_its_image() {
    let shop = Shop::open();
    let (bytes, index) = solid(5 * CHUNK, 6);
    let image = shop.put(&bytes, &index);
    let path = format!("/images/{image}/torrent");
    assert_eq!(shop.staff().get(&path).code(), "not_public");
    change(&shop, image, "{\"public\":true}");
    let nobody = Client::new(shop.address(), None);
    let torrent = nobody.get(&path);
    assert_eq!((torrent.status, torrent.header("content-type").as_str()), (200, "application/x-bittorrent"));
    let url = format!("http://{}/images/{image}", shop.address());
    let seed = format!("8:url-list{}:{url}e", url.len());
    assert!(torrent.body.ends_with(seed.as_bytes()), "{}", torrent.text());
    assert!(shop.files().contains(&format!("{image}.pieces")));
    shop.staff().send("DELETE", &format!("/images/{image}"), &[], &[]);
    assert_eq!(shop.files(), Vec::<String>::new());
}
