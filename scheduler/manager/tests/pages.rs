//! The pages as a browser gets them, over a scheduler of its own: login, cookie, other sites' forms, names that
//! are HTML, forms that work without a script, languages, and what each role may see.
#![allow(clippy::unwrap_used)]

mod shop;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use serde_json::json;
use tokio_stream::StreamExt;

use shop::{HOST, PASSWORD, Shop, text};

/// Would run in whoever looks at it.
const EVIL: &str = "<img src=x onerror=alert(1)>\"'";
const ESCAPED: &str = "&#60;img src=x onerror=alert(1)&#62;&#34;&#39;";

/// The same, as a form sends it.
const EVIL_TYPED: &str = "%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E%22%27";
/// A picture of one point.
const PIXEL: &[u8] = include_bytes!("pixel.png");

#[tokio::test]
async fn a_cookie_that_is_no_session_leads_to_the_login() {
    let shop = Shop::open().await;
    for cookie in ["", "cardshop_session=", "cardshop_session=a.b.c"] {
        assert_eq!(led_to(&shop.get("/bench", cookie).await), "/login", "{cookie}");
    }
}

#[tokio::test]
async fn the_session_cookie_is_for_this_site_and_no_script_and_ends_with_the_logout() {
    let shop = Shop::open().await;
    let cookie = shop.log_in().await;
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=3600"] {
        assert!(cookie.contains(flag), "{flag} in {cookie}");
    }
    let page = shop.get("/bench", cookie.split(';').next().unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()[header::CACHE_CONTROL], "no-store");
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let out = shop.form("/logout", &format!("http://{HOST}"), String::new()).await;
    assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().starts_with("cardshop_session=; "));
}

#[tokio::test]
async fn forms_of_other_sites_are_refused_before_they_do_anything() {
    let shop = Shop::open().await;
    let right = format!("username={}&password={}", shop.login.username, shop.login.password);
    for origin in ["http://evil.example", "null", "http://shop.example.evil.example"] {
        let answer = shop.form("/login", origin, right.clone()).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{origin}");
        assert!(!answer.headers().contains_key(header::SET_COOKIE));
        assert_eq!(shop.form("/logout", origin, String::new()).await.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn names_that_are_html_are_text_on_the_page_in_the_live_stream_and_at_the_login() {
    let shop = Shop::open().await;
    let answer = shop
        .form(
            "/login",
            &format!("http://{HOST}"),
            "username=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E%22'&password=x".into(),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page = text(answer).await;
    assert!(page.contains(ESCAPED) && !page.contains("<img"), "{page}");

    let cookie = shop.log_in().await;
    let cookie = cookie.split(';').next().unwrap();
    let token = cookie.split_once('=').unwrap().1;
    let configuration = shop.configuration().await;
    let order = json!({"kind": "physical", "configuration": configuration, "quantity": 1, "channel": "c",
        "recipient": {"name": "V", "address": "2 Example Road", "country": "FR"}, "name": EVIL});
    shop.api("/orders", token, order).await;

    let page = text(shop.get("/bench", cookie).await).await;
    assert!(page.contains(ESCAPED) && !page.contains("<img"), "{page}");

    let mut stream = shop.get("/bench/live", cookie).await.into_body().into_data_stream();
    let mut heard = String::new();
    while !heard.contains("event: order") || !heard.ends_with("\n\n") {
        heard.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(heard.contains(ESCAPED) && !heard.contains("<img"), "{heard}");
}

/// Where a redirect leads.
fn led_to(answer: &Response<Body>) -> String {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

/// The value of a hidden or other field of a page.
fn field(page: &str, name: &str) -> String {
    let at = page.find(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no field {name} in {page}"));
    let value = page[at..].split_once("value=\"").unwrap().1;
    value.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn an_order_is_placed_once_by_a_form_that_keeps_what_was_typed_until_it_is_right() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let cookie = shop.session("manager", &["c"]).await;
    let form = text(shop.get("/orders/new", &cookie).await).await;
    let key = field(&form, "key");
    assert!(form.contains(&configuration) && form.contains("32 GB"));

    let wrong =
        format!("key={key}&configuration={configuration}&quantity=many&name=School&recipient_name=Village");
    let answer = shop.post(&cookie, "/orders", &wrong).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = text(answer).await;
    assert!(page.contains("field quantity: is not a whole number") && page.contains("role=\"alert\""));
    assert_eq!((field(&page, "name"), field(&page, "quantity")), ("School".into(), "many".into()));

    let right = format!(
        "key={key}&configuration={configuration}&quantity=2&name=School&kind=physical&media=&\
         recipient_name=Village&recipient_address=2+Example+Road&recipient_country=FR"
    );
    let placed = led_to(&shop.post(&cookie, "/orders", &right).await);
    let again = led_to(&shop.post(&cookie, "/orders", &right).await);
    assert_eq!(placed, again, "a second press of the button places no second order");
    let page = text(shop.get(&placed, &cookie).await).await;
    assert!(
        page.contains("The order is placed") && page.contains("0 of 2") && page.contains("Village"),
        "{page}"
    );
    let list = text(shop.get("/orders?search=VILLAGE", &cookie).await).await;
    assert_eq!(list.matches("data-status=\"created\"").count(), 1, "{list}");
    let none = text(shop.get("/orders?status=shipped", &cookie).await).await;
    assert!(none.contains("Nothing here yet."));

    let path = placed.split('?').next().unwrap();
    let again =
        text(shop.get(&format!("/orders/new?again={}", &path["/orders/".len()..]), &cookie).await).await;
    assert_eq!((field(&again, "quantity"), field(&again, "recipient_country")), ("2".into(), "FR".into()));
    let ship = shop.post(&cookie, path, "do=ship&count=1").await;
    assert_eq!(ship.status(), StatusCode::CONFLICT, "no card is verified");
    assert_eq!(led_to(&shop.post(&cookie, path, "do=cancel").await), format!("{path}?done=cancel"));
    let page = text(shop.get(&format!("{path}?done=cancel"), &cookie).await).await;
    assert!(page.contains("data-status=\"canceled\"") && page.contains("The order is canceled"));
    assert_eq!(shop.post(&cookie, path, "do=retry").await.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn pages_show_nothing_of_other_channels_and_each_role_what_it_may() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let order = format!("key=k&configuration={configuration}&channel=c&quantity=1&recipient_name=V");
    let path = led_to(&shop.post(&staff, "/orders", &order).await);
    let path = path.split('?').next().unwrap();
    let operator = shop.session("operator", &["c"]).await;
    let stranger = shop.session("manager", &["default"]).await;

    assert_eq!(shop.get(path, &stranger).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(shop.post(&stranger, path, "do=cancel").await.status(), StatusCode::NOT_FOUND);
    assert!(!text(shop.get("/orders", &stranger).await).await.contains("data-status"));
    assert_eq!(shop.get(path, &operator).await.status(), StatusCode::OK);
    assert_eq!(shop.get("/orders/new", &operator).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(shop.post(&operator, path, "do=cancel").await.status(), StatusCode::FORBIDDEN);
    assert_eq!(shop.post(&operator, "/appliances/join", "label=x").await.status(), StatusCode::FORBIDDEN);
    for nothing in
        ["/orders/nonsense", "/cards/nonsense", "/appliances/nonsense", "/cards/labels?order=nonsense"]
    {
        assert_eq!(shop.get(nothing, &staff).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
    assert_eq!(
        shop.post(&staff, "/slots/0123456789abcdef/s01", "do=identify").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn preferences_choose_language_and_time_zone_and_refuse_what_they_do_not_know() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let set = |answer: &Response<Body>| -> Vec<String> {
        answer.headers().get_all(header::SET_COOKIE).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
    };
    let kept = set(&shop.post(&staff, "/preferences", "language=fr&zone=").await);
    assert!(kept[0].starts_with("cardshop_language=fr; ") && kept[1].contains("Max-Age=0"), "{kept:?}");
    let none = set(&shop.post(&staff, "/preferences", "language=xx&zone=Nowhere%2FElse%0d%0aX").await);
    assert!(none.is_empty(), "{none:?}");
    let french = text(shop.get("/preferences", &format!("{staff}; cardshop_language=fr")).await).await;
    assert!(french.contains("Préférences") && french.contains("Enregistrer"));
    let login = text(shop.get("/login", "cardshop_language=fr").await).await;
    assert!(login.contains("Mot de passe"));
}

#[tokio::test]
async fn a_join_file_is_made_once_and_a_scan_finds_what_has_the_code() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let file = shop.post(&staff, "/appliances/join", "label=Bench+%22one%22").await;
    assert_eq!(file.status(), StatusCode::OK);
    assert_eq!(file.headers()[header::CONTENT_DISPOSITION], "attachment; filename=\"JOIN.TXT\"");
    let join: toml::Table = text(file).await.parse().unwrap();
    assert!(join["token"].as_str().unwrap().starts_with("csj1."));
    let told = (join["server"].as_str().unwrap(), join["label"].as_str().unwrap());
    assert_eq!(told, (format!("http://{HOST}").as_str(), "Bench \"one\""));

    let order = format!("key=k&configuration={configuration}&channel=c&quantity=1&recipient_name=V");
    let placed = led_to(&shop.post(&staff, "/orders", &order).await);
    let path = placed.split('?').next().unwrap();
    let id = path["/orders/".len()..].to_uppercase();
    assert_eq!(led_to(&shop.post(&staff, "/scan", &format!("code=+{id}+")).await), path);
    for (code, why) in [("nothing", "Nothing here has the code nothing"), ("RETRY", "Scan a slot first")] {
        let answer = shop.post(&staff, "/scan", &format!("code={code}")).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(text(answer).await.contains(why), "{code}");
    }
}

#[tokio::test]
async fn a_screen_shows_tiles_to_whoever_has_its_key_until_that_is_ended_and_nothing_else() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    assert_eq!(shop.get("/tv", &staff).await.status(), StatusCode::UNAUTHORIZED, "a login is no key");
    let made = text(shop.post(&staff, "/screens", "name=front-door").await).await;
    let key = made.split_once("href=\"/tv#").unwrap().1.split('"').next().unwrap().to_owned();
    let let_in = shop.post("", "/tv", &format!("key={key}")).await;
    let cookie = let_in.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("; Path=/tv; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(led_to(&let_in), "/tv");
    let screen = cookie.split(';').next().unwrap().to_owned();
    let page = shop.get("/tv", &screen).await;
    assert_eq!(page.status(), StatusCode::OK);
    let page = text(page).await;
    for nothing in ["<form", "<nav", "admin", &key] {
        assert!(!page.contains(nothing), "{nothing} in {page}");
    }
    let session = screen.replace("cardshop_tv", "cardshop_session");
    assert_eq!(shop.get("/tv/live", &screen).await.status(), StatusCode::OK);

    let token = staff.split_once('=').unwrap().1;
    let orders = json!({"name": "program", "rights": ["watch", "order"]});
    let strong = shop.api("/api-keys", token, orders).await["key"].as_str().unwrap().to_owned();
    for key in [strong.as_str(), token, "nonsense"] {
        assert_eq!(shop.post("", "/tv", &format!("key={key}")).await.status(), StatusCode::UNAUTHORIZED);
    }
    let list = text(shop.get("/screens", &staff).await).await;
    assert!(list.contains("front-door") && !list.contains("program") && !list.contains(&key));
    let revoke = list.split_once("action=\"/screens/").unwrap().1.split('"').next().unwrap();
    assert_eq!(led_to(&shop.post(&staff, &format!("/screens/{revoke}"), "").await), "/screens?done=revoked");
    assert_eq!(shop.get("/tv", &screen).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(shop.get("/tv/live", &screen).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        shop.get("/bench", &session).await.status(),
        StatusCode::SEE_OTHER,
        "an ended key is no login"
    );
}

/// A form with files, as a browser sends it.
fn multipart(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        body.extend(
            format!("--edge\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend(*bytes);
        body.extend(b"\r\n");
    }
    body.extend(b"--edge--\r\n");
    body
}

impl Shop {
    async fn upload(
        &self,
        cookie: &str,
        path: &str,
        parts: &[(&str, Option<&str>, &[u8])],
    ) -> Response<Body> {
        let request = Request::post(path)
            .header(header::HOST, HOST)
            .header(header::COOKIE, cookie)
            .header(header::ORIGIN, format!("http://{HOST}"))
            .header(header::CONTENT_TYPE, "multipart/form-data; boundary=edge");
        self.send(request.body(Body::from(multipart(parts))).unwrap()).await
    }
}

#[tokio::test]
async fn a_configuration_is_made_edited_copied_taken_along_and_deleted_by_its_forms() {
    let shop = Shop::open().await;
    shop.configuration().await;
    let cookie = shop.session("manager", &["c"]).await;
    let form = text(shop.get("/configurations/new", &cookie).await).await;
    let key = field(&form, "key");
    let general = |more: &str| {
        format!("key={key}&name=Kita&wifi_password=correct+horse&time_zone=Africa%2FBamako{more}")
    };
    let wrong = shop.post(&cookie, "/configurations", &general("&ssid=x&language=French")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = text(wrong).await;
    assert!(
        wrong.contains("language: must be a language tag") && wrong.contains("value=\"correct horse\""),
        "{wrong}"
    );
    let made = led_to(&shop.post(&cookie, "/configurations", &general("&language=fr")).await);
    assert_eq!(
        made,
        led_to(&shop.post(&cookie, "/configurations", &general("&language=fr")).await),
        "made once"
    );
    let path = made.split('?').next().unwrap();

    let apps =
        format!("version=1&name=kiwix&image=ghcr.io%2Fx%3A1&environment=TITLE%3D{EVIL_TYPED}&name=&image=");
    assert_eq!(
        led_to(&shop.post(&cookie, &format!("{path}/apps"), &apps).await),
        format!("{path}?done=saved")
    );
    let stale = shop.post(&cookie, &format!("{path}/apps"), &apps).await;
    assert_eq!(stale.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(stale).await.contains("was changed by somebody else"));
    let page = text(shop.get(&format!("{path}/apps"), &cookie).await).await;
    assert!(page.contains(ESCAPED) && !page.contains("<img"), "{page}");

    let bad = [
        ("version", None, b"2".as_slice()),
        ("colour", None, b"#0a56c2"),
        ("logo", Some("logo.png"), b"no picture"),
    ];
    let bad = shop.upload(&cookie, &format!("{path}/branding"), &bad).await;
    assert_eq!(bad.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(bad).await.contains("branding.logo.png: is no PNG, JPEG or WebP"));
    let good =
        [("version", None, b"2".as_slice()), ("colour", None, b"#0a56c2"), ("logo", Some("x.png"), PIXEL)];
    led_to(&shop.upload(&cookie, &format!("{path}/branding"), &good).await);
    let picture = shop.get(&format!("{path}/branding/logo.png"), &cookie).await;
    assert_eq!(picture.headers()[header::CONTENT_TYPE], "image/png");
    let preview = text(shop.get(&format!("{path}/branding"), &cookie).await).await;
    assert!(preview.contains("fill=\"#0a56c2\"") && preview.contains("/branding/logo.png"), "{preview}");

    let copy = led_to(&shop.post(&cookie, path, "do=duplicate").await);
    let copy = copy.split('?').next().unwrap();
    let file = shop.get(&format!("{copy}/export?secrets=1"), &cookie).await;
    assert!(file.headers()[header::CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment"));
    let file = text(file).await;
    assert!(file.contains("correct horse"));
    assert!(!text(shop.get(&format!("{copy}/export"), &cookie).await).await.contains("correct horse"));
    assert!(text(shop.get(&format!("{copy}?delete=1"), &cookie).await).await.contains("Delete Kita (2)?"));
    assert_eq!(led_to(&shop.post(&cookie, copy, "do=delete").await), "/configurations?done=deleted");
    assert_eq!(shop.get(copy, &cookie).await.status(), StatusCode::NOT_FOUND);
    let again = [("file", Some("c.json"), file.as_bytes())];
    assert!(
        led_to(&shop.upload(&cookie, "/configurations/import", &again).await).ends_with("?done=imported")
    );
    let broken = shop.upload(&cookie, "/configurations/import", &[("file", Some("c.json"), b"{")]).await;
    assert!(text(broken).await.contains("field file: is not JSON"));

    let stranger = shop.session("manager2", &["default"]).await;
    let operator = shop.session("operator", &["c"]).await;
    for page in ["", "/general", "/branding", "/branding/logo.png", "/content", "/apps", "/export"] {
        let answer = shop.get(&format!("{path}{page}"), &stranger).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{page}");
    }
    assert_eq!(shop.get(&format!("{path}/general"), &operator).await.status(), StatusCode::FORBIDDEN);
    let seen = text(shop.get(path, &operator).await).await;
    assert!(
        seen.contains("Kita") && !seen.contains("correct horse") && !seen.contains("do\" value=\"duplicate")
    );
}

#[tokio::test]
async fn an_address_is_made_corrected_chosen_for_an_order_and_deleted() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let cookie = shop.session("manager", &["c"]).await;
    let typed = |phone: &str, more: &str| {
        format!("name=Awa&street=2+rue+X%0D%0AB.P.+7&city=Kita&country=ML&phone={phone}{more}")
    };
    let wrong = shop.post(&cookie, "/addresses", &typed("12345", "&key=k")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = text(wrong).await;
    assert!(
        wrong.contains("field phone: must begin with +") && wrong.contains("value=\"ML\" selected"),
        "{wrong}"
    );
    let made = format!("key={}&{}", field(&wrong, "key"), typed("%2B223+20+21+22+23", ""));
    assert_eq!(led_to(&shop.post(&cookie, "/addresses", &made).await), "/addresses?done=made");
    let list = text(shop.get("/addresses?search=kita", &cookie).await).await;
    assert!(list.contains("2 rue X, B.P. 7, Kita") && list.contains("A parcel reaches it"), "{list}");
    let french = text(shop.get("/addresses", &format!("{cookie}; cardshop_language=fr")).await).await;
    assert!(french.contains("Un colis y arrive") && french.contains("Mali"));
    let path = list.split_once("href=\"/addresses/0").unwrap().1.split('"').next().unwrap();
    let path = format!("/addresses/0{path}");

    let form = text(shop.get(&format!("/orders/new?configuration={configuration}"), &cookie).await).await;
    let id = &path["/addresses/".len()..];
    assert!(form.contains(&format!("value=\"{id}\"")), "{form}");
    let order = format!(
        "key={}&configuration={configuration}&quantity=1&address={id}&recipient_name=ignored",
        field(&form, "key")
    );
    let placed = led_to(&shop.post(&cookie, "/orders", &order).await);
    let page = text(shop.get(&placed, &cookie).await).await;
    assert!(page.contains("B.P. 7") && page.contains("+22320212223") && !page.contains("ignored"), "{page}");

    let again = placed.split('?').next().unwrap().replace("/orders/", "/orders/new?again=");
    let again = text(shop.get(&again, &cookie).await).await;
    assert_eq!(field(&again, "recipient_phone"), "+22320212223", "the same recipient again");

    let version = field(&text(shop.get(&path, &cookie).await).await, "version");
    let changed = typed("%2B223+20+21+22+23", &format!("&version={version}&postal_code=&company=%C3%89cole"));
    assert_eq!(led_to(&shop.post(&cookie, &path, &changed).await), format!("{path}?done=saved"));
    assert_eq!(
        shop.post(&cookie, &path, &changed).await.status(),
        StatusCode::UNPROCESSABLE_ENTITY,
        "an old version"
    );
    let stranger = shop.session("manager2", &["default"]).await;
    assert_eq!(shop.get(&path, &stranger).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(shop.post(&stranger, &path, "do=delete").await.status(), StatusCode::NOT_FOUND);
    assert!(text(shop.get(&format!("{path}?delete=1"), &cookie).await).await.contains("Delete Awa, École?"));
    assert_eq!(led_to(&shop.post(&cookie, &path, "do=delete").await), "/addresses?done=deleted");
    let operator = shop.session("operator", &["c"]).await;
    assert_eq!(shop.get("/addresses", &operator).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_order_form_tells_size_cost_and_what_it_waits_for_before_anything_is_placed() {
    let shop = Shop::open().await;
    shop.configuration().await;
    let staff = shop.staff().await;
    let token = staff.split_once('=').unwrap().1;
    let organization = json!({"name": "School", "channel": "c", "units": 3});
    let organization = shop.api("/organizations", token, organization).await;
    let user = json!({"username": "awa", "password": PASSWORD, "role": "manager", "organization": organization["id"]});
    shop.api("/users", token, user).await;
    let cookie = shop.log_in_as("awa", PASSWORD).await.split(';').next().unwrap().to_owned();
    let awa = cookie.split_once('=').unwrap().1;
    let large =
        json!({"files": [{"to": "/data/x", "url": "https://x.example/x", "size": 20_000_000_000_u64}]});
    let large = shop.api("/configurations", awa, json!({"name": "Large", "recipe": large})).await;
    let large = large["id"].as_str().unwrap();

    let typed = |quantity: u32, more: &str| {
        format!("configuration={large}&quantity={quantity}&recipient_name=V{more}")
    };
    let told = shop.post(&cookie, "/orders", &typed(5, "&do=compute")).await;
    assert_eq!(told.status(), StatusCode::OK);
    let told = text(told).await;
    assert!(
        told.contains("This order costs 5 units; you have 3") && told.contains("ask staff for units"),
        "{told}"
    );
    assert!(told.contains(" disabled>16 GB: too small, the image needs 22.2 GB"), "{told}");
    assert!(told.contains("<dd>32 GB</dd>") && !told.contains("disabled>32 GB"), "{told}");
    assert!(
        text(shop.get("/orders", &cookie).await).await.contains("Nothing here yet."),
        "nothing was placed"
    );
    led_to(&shop.post(&cookie, "/orders", &format!("key=one&{}", typed(1, ""))).await);
    let waits = text(shop.post(&cookie, "/orders", &typed(1, "&do=compute")).await).await;
    assert!(
        waits.contains("Your organization has an open order, Large") && waits.contains("you have 2"),
        "{waits}"
    );
    let refused = shop.post(&cookie, "/orders", &format!("key=two&{}", typed(1, ""))).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let refused = text(refused).await;
    assert!(
        refused.contains("has an open order: wait for its end") && refused.contains("value=\"V\""),
        "{refused}"
    );
}

#[tokio::test]
async fn sizes_of_cards_are_staffs_and_one_that_an_order_needs_stays() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let page = text(shop.get("/media", &staff).await).await;
    let id = page.split_once("action=\"/media/").unwrap().1.split('"').next().unwrap().to_owned();
    let order =
        format!("key=k&configuration={configuration}&channel=c&quantity=1&recipient_name=V&media={id}");
    led_to(&shop.post(&staff, "/orders", &order).await);
    let path = format!("/media/{id}");
    let refused = shop.post(&staff, &path, "do=delete").await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(refused).await.contains("this size of card is needed by order S ("));
    assert_eq!(
        led_to(&shop.post(&staff, &path, "do=save&name=8+GB&usable=7+700+000+000").await),
        "/media?done=saved"
    );
    let wrong = text(shop.post(&staff, &path, "do=save&name=8+GB&usable=lots").await).await;
    assert!(
        wrong.contains("field usable_bytes: is not a whole number") && wrong.contains("7700000000"),
        "{wrong}"
    );
    assert_eq!(
        led_to(&shop.post(&staff, "/media", "name=4+GB&advertised=4000000000").await),
        "/media?done=made"
    );
    let manager = shop.session("manager", &["c"]).await;
    assert_eq!(shop.get("/media", &manager).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(shop.post(&manager, &path, "do=delete").await.status(), StatusCode::FORBIDDEN);
}
