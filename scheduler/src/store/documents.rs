//! How each kind of document is named and found in the store.

use cardshop_protocol::api::Membership;

use super::Document;
use super::upgrade::Kind;
use crate::core::account_hook::AccountHook;
use crate::core::address::Address;
use crate::core::auto_image::AutoImage;
use crate::core::blame::BenchRecord;
use crate::core::documents::{
    ApiKey, Appliance, Applied, Audit, CardDocument, ChannelDocument, Configuration, DesiredDocument,
    FormerName, Grant, Idempotent, JoinTokenDocument, Maintenance, Media, OrderRecipe, RefreshFamily, Secret,
    Starts, Story, Unique, UsedLink, User, WarehouseDocument,
};
use crate::core::notify::message::{Message, To};
use crate::core::notify::preferences::Preferences;
use crate::core::notify::template::Override;
use crate::core::notify::trouble::Troubles;
use crate::core::notify::web::Webhook;
use crate::core::order::Order;
use crate::core::rollout::Rollout;
use crate::core::task_log::TaskLog;
use crate::core::token_keys::TokenKey;
use crate::core::units::Organization;
use crate::core::web_session::WebSession;

/// `kind, type, id; index… , schema N`: a new index is a new schema, so that what is kept gets it at the next start.
macro_rules! document {
    ($kind:literal, $type:ty, |$doc:ident| $id:expr $(, $index:expr $(, schema $schema:literal)?)?) => {
        impl Document for $type {
            const KIND: &'static str = $kind;
            $($(const SCHEMA: u32 = $schema;)?)?
            fn id(&self) -> String {
                let $doc = self;
                $id
            }
            $(fn index(&self) -> Vec<(&'static str, String)> {
                let $doc = self;
                $index
            })?
        }
    };
}

fn some<T: ToString>(name: &'static str, value: Option<&T>) -> Vec<(&'static str, String)> {
    value.map(|v| (name, v.to_string())).into_iter().collect()
}

document!("user", User, |d| d.id.to_string(), {
    let raised = d.epoch_raised.map(|_| ("raised", "yes".into()));
    raised.into_iter().collect()
});
document!("unique", Unique, |d| format!("{}:{}", d.kind, d.name));
document!("channel", ChannelDocument, |d| d.id.to_string());
document!("media", Media, |d| d.id.to_string());
document!("warehouse", WarehouseDocument, |d| d.id.to_string());
document!("address", Address, |d| d.id.to_string());
document!("configuration", Configuration, |d| d.id.to_string());
document!("recipe", OrderRecipe, |d| d.order.to_string());
document!(
    "appliance",
    Appliance,
    |d| d.id.to_string(),
    {
        let waiting = (d.state == Membership::Pending).then(|| ("waiting", "yes".into()));
        waiting.into_iter().collect()
    },
    schema 2
);
document!("join-token", JoinTokenDocument, |d| d.id.to_string());
document!("api-key", ApiKey, |d| d.id.to_string(), {
    let revoked = d.revoked.map(|_| ("revoked", "yes".into()));
    revoked.into_iter().collect()
});
document!("family", RefreshFamily, |d| d.id.to_string());
document!("former-name", FormerName, |d| d.name.clone());
document!("web-session", WebSession, |d| d.id.to_string(), vec![("user", d.user.to_string())]);
document!("auto-image", AutoImage, |d| d.id.to_string());
document!("account-hook", AccountHook, |d| d.id.to_string());
document!("maintenance", Maintenance, |_d| "site".to_owned());
document!("task-log", TaskLog, |d| format!("{}-{}", d.task, d.kind.name()), {
    vec![("order", d.order.to_string())]
});
document!("token-key", TokenKey, |d| d.kid.clone());
document!("used-link", UsedLink, |d| d.id.clone());
document!("secret", Secret, |d| d.name.clone());
document!("starts", Starts, |_d| "scheduler".to_owned());
document!("applied", Applied, |d| d.appliance.to_string());
document!("desired", DesiredDocument, |d| d.appliance.to_string());
document!("bench", BenchRecord, |d| d.appliance.to_string());
document!("grant", Grant, |d| d.id.to_string(), vec![("order", d.order.to_string())]);
document!("card", CardDocument, |d| d.record.uid.to_string(), {
    let mut index = vec![("order", d.record.order.to_string())];
    index.extend(some("channel", d.channel.as_ref()));
    index
});
document!("story", Story, |d| d.id.to_string(), {
    let mut index = some("order", d.order.as_ref());
    index.extend(some("channel", d.channel.as_ref()));
    index
});
document!("rollout", Rollout, |d| d.id.to_string());
document!("audit", Audit, |d| d.id.to_string());
document!("idempotent", Idempotent, |d| d.id.clone());
document!("organization", Organization, |d| d.id.to_string());
document!(
    "order",
    Order,
    |d| d.id.to_string(),
    {
        let mut index = vec![("channel", d.channel.to_string())];
        index.extend(some("image", d.image.as_ref().map(|i| &i.id)));
        if d.shelves().contains(&"open") {
            index.extend(some("open-of", d.organization.as_ref()));
        }
        index.extend(d.shelves().into_iter().map(|shelf| ("shelf", shelf.to_owned())));
        index
    },
    schema 2
);
document!("message", Message, |d| d.id.to_string(), {
    let mut index = some("order", d.order.as_ref());
    if let To::Webhook { webhook } = &d.to {
        index.push(("webhook", webhook.to_string()));
    }
    // What is over is looked for by its order.
    index.extend(d.state.is_open().then(|| ("state", d.state.name().to_owned())));
    index
});
document!("notifications", Preferences, |d| d.user.map(|id| id.to_string()).unwrap_or_default(), {
    d.extra().map(|notice| ("extra", notice.name().to_owned())).collect()
});
document!("template", Override, |d| format!("{}.{}", d.notice.name(), d.language));
document!("trouble", Troubles, |d| d.appliance.to_string());
document!("webhook", Webhook, |d| d.id.to_string());

/// Every kind above; one whose schema has grown is upgraded at start.
pub(crate) const KINDS: &[Kind] = &[
    Kind::of::<User>(),
    Kind::of::<Unique>(),
    Kind::of::<ChannelDocument>(),
    Kind::of::<Media>(),
    Kind::of::<WarehouseDocument>(),
    Kind::of::<Address>(),
    Kind::of::<Configuration>(),
    Kind::of::<OrderRecipe>(),
    Kind::of::<Appliance>(),
    Kind::of::<JoinTokenDocument>(),
    Kind::of::<ApiKey>(),
    Kind::of::<RefreshFamily>(),
    Kind::of::<FormerName>(),
    Kind::of::<WebSession>(),
    Kind::of::<AutoImage>(),
    Kind::of::<AccountHook>(),
    Kind::of::<Maintenance>(),
    Kind::of::<TaskLog>(),
    Kind::of::<TokenKey>(),
    Kind::of::<UsedLink>(),
    Kind::of::<Secret>(),
    Kind::of::<Starts>(),
    Kind::of::<Applied>(),
    Kind::of::<DesiredDocument>(),
    Kind::of::<BenchRecord>(),
    Kind::of::<Grant>(),
    Kind::of::<CardDocument>(),
    Kind::of::<Story>(),
    Kind::of::<Rollout>(),
    Kind::of::<Audit>(),
    Kind::of::<Idempotent>(),
    Kind::of::<Organization>(),
    Kind::of::<Order>(),
    Kind::of::<Message>(),
    Kind::of::<Preferences>(),
    Kind::of::<Override>(),
    Kind::of::<Troubles>(),
    Kind::of::<Webhook>(),
];

#[cfg(test)]
mod tests {
    use super::KINDS;

    #[test]
    fn every_kind_of_document_is_upgraded_at_start() {
        let source = include_str!("documents.rs");
        // One that takes several lines has its name on the second.
        let source = source.replace("document!(\n    \"", "document!(\"");
        let named = source.lines().filter_map(|line| line.strip_prefix("document!(\"")?.split('"').next());
        assert!(named.eq(KINDS.iter().map(|kind| kind.name)));
    }
}
