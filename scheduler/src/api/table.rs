//! Every route in one table: method, path, who may, what goes in and comes out. `openapi` describes the API from it,
//! and tests walk it: a route that is missing here, or here and not served, fails one. It decides nothing: functions
//! of [`crate::Scheduler`] ask for rights themselves, and the tests show that they ask for what stands here.

use cardshop_protocol::api::{
    ApplianceLogin, Claim, CreationReport, CreationTask, Join, JoinAnswer, Login, NonceAnswer, NonceRequest,
    Page, Refresh, ReportAnswer, SlotView, SupportFile, TokenPair,
};
use cardshop_protocol::keys::KeyList;
use cardshop_protocol::message::CommandReply;
use cardshop_protocol::time::Timestamp;
use schemars::{Schema, SchemaGenerator, json_schema};

use crate::core::account_hook::{AccountHook, Purchase};
use crate::core::address::AddressView;
use crate::core::auto_image::AutoImageView;
use crate::core::configurations::{ConfigurationView, ExportedConfiguration, SizeView};
use crate::core::content::{ContentOrder, ContentView};
use crate::core::documents::{Audit, ChannelDocument, Maintenance, Media, Story, WarehouseDocument};
use crate::core::estimate::Estimate;
use crate::core::explain::Explanation;
use crate::core::media::Measured;
use crate::core::notify::{
    MessageState, MessageView, NewWebhook, Notice, PreferencesView, Preview, TemplateView, WebhookView,
};
use crate::core::order::OrderStatus;
use crate::core::rights::{Action, Principal};
use crate::core::rollout::{NewRollout, RolloutView};
use crate::core::units::Organization;
use crate::core::views::{
    ActionLink, ActionLinkView, ApiKeyView, ApplianceView, CardView, ForgotPassword, Forgotten, HookAnswer,
    ImageView, JoinTokenView, LinkToken, LoadView, LogPiece, LogView, NewAccountHook, NewActionLink,
    NewApiKey, NewJoinToken, NewPassword, OrderView, PresenceView, Rotation, SlotHoldView, TaskView, UseLink,
    UserView, ValidToken, Validate,
};
use crate::core::web_session::SessionView;
use crate::effects::jobs::JobView;

/// Makes a schema.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// Methods of this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a token.
    Open,
    /// Everybody with a token.
    Known,
    /// Whoever may do this.
    May(Action),
}

/// What comes back.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// JSON, with this status.
    Json(u16, Shape),
    /// JSON, or nothing with 204.
    Maybe(Shape),
    /// JSON with 200, or with 503 when something is away.
    Health(Shape),
    /// Nothing, and where it is.
    Elsewhere,
    /// Text of this type.
    Text(&'static str),
    /// A file of one of these types.
    File(&'static [&'static str]),
}

/// A parameter of the query, all of which may be left out.
pub(crate) type Parameter = (&'static str, Shape);

/// One route.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) summary: &'static str,
    pub(crate) query: &'static [Parameter],
    pub(crate) body: Option<Shape>,
    /// Takes an `Idempotency-Key`.
    pub(crate) once: bool,
    pub(crate) answer: Answer,
}

use Access::{Known, May, Open};
use Action::{Administer, Create, Enrol, Listen, Log, Look, Order, Ship, Tend, Watch};

const fn get(path: &'static str, access: Access, summary: &'static str, shape: Shape) -> Operation {
    let answer = Answer::Json(200, shape);
    Operation { method: Method::Get, path, access, summary, query: &[], body: None, once: false, answer }
}

const fn list(path: &'static str, access: Access, summary: &'static str, shape: Shape) -> Operation {
    Operation { query: PAGE, ..get(path, access, summary, shape) }
}

/// Acts on what its path names.
const fn act(path: &'static str, access: Access, summary: &'static str, shape: Shape) -> Operation {
    Operation { method: Method::Post, ..get(path, access, summary, shape) }
}

const fn with(operation: Operation, body: Shape) -> Operation {
    Operation { body: Some(body), ..operation }
}

/// Makes an object.
const fn make(
    path: &'static str,
    access: Access,
    summary: &'static str,
    body: Shape,
    shape: Shape,
) -> Operation {
    let answer = Answer::Json(201, shape);
    Operation { once: true, answer, ..with(act(path, access, summary, shape), body) }
}

/// A route, for people who read about the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Below the server's address.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Whoever calls it needs no token.
    pub open: bool,
    /// Parameters of the query.
    pub query: Vec<&'static str>,
    /// It has a body.
    pub body: bool,
    /// It takes an `Idempotency-Key`.
    pub once: bool,
}

/// Every route of the API.
pub fn routes() -> Vec<RouteView> {
    let view = |operation: &Operation| RouteView {
        method: if operation.method == Method::Get { "GET" } else { "POST" },
        path: operation.path,
        summary: operation.summary,
        open: operation.access == Open,
        query: operation.query.iter().map(|(name, _)| *name).collect(),
        body: operation.body.is_some(),
        once: operation.once,
    };
    OPERATIONS.iter().map(view).collect()
}

/// Labels, as a file.
const fn labels(path: &'static str, access: Access, summary: &'static str) -> Operation {
    let answer = Answer::File(&["application/pdf", "text/plain"]);
    Operation {
        query: &[("format", label_format), ("start", number), LANG],
        answer,
        ..get(path, access, summary, text)
    }
}

/// All of them. Paths are below the server's address.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation { answer: Answer::Health(health), ..get("/health", Open, "Whether all parts work", health) },
    Operation {
        answer: Answer::Text("text/plain"),
        ..get("/metrics", Open, "Counters, for Prometheus", text)
    },
    get("/api/v1/openapi.json", Open, "This description", any),
    get("/api/v1/keys", Open, "Keys that sign, and whose tokens ended", of::<KeyList>),
    with(act("/api/v1/auth/login", Open, "Log in with a password", of::<TokenPair>), of::<Login>),
    with(
        act("/api/v1/auth/refresh", Open, "Change a refresh token for the next", of::<TokenPair>),
        of::<Refresh>,
    ),
    with(
        act("/api/v1/auth/nonce", Open, "What an appliance is to sign", of::<NonceAnswer>),
        of::<NonceRequest>,
    ),
    with(act("/api/v1/auth/appliance", Open, "Log in with a key", of::<TokenPair>), of::<ApplianceLogin>),
    with(
        act("/api/v1/auth/validate", Open, "What a token says, if it counts", of::<ValidToken>),
        of::<Validate>,
    ),
    with(act("/api/v1/auth/password", Open, "Set a password by a letter", of::<UserView>), of::<NewPassword>),
    with(
        act("/api/v1/auth/forgot", Open, "Have a letter for a new password sent", of::<Forgotten>),
        of::<ForgotPassword>,
    ),
    with(act("/api/v1/keys/rotate", May(Administer), "A new key for tokens", of::<KeyList>), of::<Rotation>),
    with(act("/api/v1/join", Open, "Ask to join, with a join token", of::<JoinAnswer>), of::<Join>),
    get("/api/v1/join/{appliance}", Open, "Whether an appliance is approved", of::<JoinAnswer>),
    get("/api/v1/me", Known, "Who calls", of::<Principal>),
    with(act("/api/v1/me/password", Known, "Change the own password", of::<UserView>), own_password),
    get("/api/v1/me/sessions", Known, "The caller's logins on the pages", of::<Page<SessionView>>),
    with(act("/api/v1/me/sessions/end", Known, "End all own logins", of::<UserView>), confirmation),
    with(act("/api/v1/me/delete", Known, "Forget who the caller was", of::<UserView>), confirmation),
    list("/api/v1/channels", May(Watch), "Channels of the caller", of::<Page<ChannelDocument>>),
    make("/api/v1/channels", May(Administer), "Make a channel", channel, of::<ChannelDocument>),
    get("/api/v1/channels/{id}", May(Watch), "One channel", of::<ChannelDocument>),
    with(
        act("/api/v1/channels/{id}/update", May(Administer), "Change a channel", of::<ChannelDocument>),
        channel_change,
    ),
    act("/api/v1/channels/{id}/delete", May(Administer), "Remove an unused one", of::<ChannelDocument>),
    list("/api/v1/media", May(Watch), "The catalogue of cards", of::<Page<Media>>),
    list("/api/v1/warehouses", May(Watch), "The warehouses", of::<Page<WarehouseDocument>>),
    make("/api/v1/warehouses", May(Administer), "Add a warehouse", warehouse, of::<WarehouseDocument>),
    act("/api/v1/warehouses/{id}/delete", May(Administer), "Forget an unused one", of::<WarehouseDocument>),
    make("/api/v1/media", May(Administer), "Add a size of card", media, of::<Media>),
    with(act("/api/v1/media/{id}/update", May(Administer), "Change one", of::<Media>), media_change),
    act("/api/v1/media/{id}/delete", May(Administer), "Remove one that no order needs", of::<Media>),
    get("/api/v1/media/{id}/measured", May(Administer), "How large such cards were", of::<Measured>),
    Operation {
        query: CONTENT,
        ..list("/api/v1/content", May(Look), "The catalogue of content", of::<Page<ContentView>>)
    },
    list("/api/v1/addresses", May(Order), "The address book", of::<Page<AddressView>>),
    make("/api/v1/addresses", May(Order), "Add an address", address, of::<AddressView>),
    get("/api/v1/addresses/{id}", May(Order), "One address", of::<AddressView>),
    with(act("/api/v1/addresses/{id}/update", May(Order), "Change one", of::<AddressView>), address_change),
    act("/api/v1/addresses/{id}/delete", May(Order), "Remove one", of::<AddressView>),
    list("/api/v1/configurations", May(Look), "Configurations, newest first", of::<Page<ConfigurationView>>),
    make(
        "/api/v1/configurations",
        May(Order),
        "Make a configuration",
        configuration,
        of::<ConfigurationView>,
    ),
    make(
        "/api/v1/configurations/import",
        May(Order),
        "Make one from a file",
        imported_configuration,
        of::<ConfigurationView>,
    ),
    get("/api/v1/configurations/{id}", May(Look), "One configuration", of::<ConfigurationView>),
    with(
        act("/api/v1/configurations/{id}/update", May(Order), "Change one", of::<ConfigurationView>),
        configuration_change,
    ),
    make(
        "/api/v1/configurations/{id}/duplicate",
        May(Order),
        "Another one with the same content",
        name,
        of::<ConfigurationView>,
    ),
    act(
        "/api/v1/configurations/{id}/delete",
        May(Order),
        "Remove one that nothing needs",
        of::<ConfigurationView>,
    ),
    Operation {
        query: &[("secrets", boolean)],
        ..get("/api/v1/configurations/{id}/export", May(Order), "As a file", of::<ExportedConfiguration>)
    },
    get("/api/v1/configurations/{id}/size", May(Look), "How large its image becomes", of::<SizeView>),
    Operation {
        query: ORDER_PAGE,
        ..list("/api/v1/events", May(Watch), "What happened, of one order or all", of::<Page<Story>>)
    },
    Operation {
        query: AUDIT_PAGE,
        ..list("/api/v1/audit", May(Administer), "Who changed what, newest first", of::<Page<Audit>>)
    },
    list("/api/v1/organizations", May(Watch), "Organizations: the own one, or all", of::<Page<Organization>>),
    make("/api/v1/organizations", May(Administer), "Make an organization", organization, of::<Organization>),
    get("/api/v1/organizations/{id}", May(Administer), "One organization", of::<Organization>),
    with(
        act("/api/v1/organizations/{id}/update", May(Administer), "Change one", of::<Organization>),
        organization_change,
    ),
    act("/api/v1/organizations/{id}/delete", May(Administer), "Remove an unused one", of::<Organization>),
    Operation {
        once: true,
        ..with(
            act("/api/v1/organizations/{id}/units", May(Administer), "Add or take units", of::<Organization>),
            units,
        )
    },
    list("/api/v1/users", May(Administer), "Users", of::<Page<UserView>>),
    make("/api/v1/users", May(Administer), "Make a user", user, of::<UserView>),
    get("/api/v1/users/{id}", May(Administer), "One user", of::<UserView>),
    with(
        act("/api/v1/users/{id}/update", May(Administer), "Change role, channels, address", of::<UserView>),
        user_change,
    ),
    act("/api/v1/users/{id}/disable", May(Administer), "Lock a user out", of::<UserView>),
    act("/api/v1/users/{id}/enable", May(Administer), "Let a user in again", of::<UserView>),
    with(
        act("/api/v1/users/{id}/password", May(Administer), "Give a user another password", of::<UserView>),
        new_password,
    ),
    with(
        act("/api/v1/users/{id}/expiry", May(Administer), "Until when a user may log in", of::<UserView>),
        expiry,
    ),
    act("/api/v1/users/{id}/invite", May(Administer), "A token for a first password", of::<ActionLink>),
    act("/api/v1/users/{id}/reset", May(Administer), "A token for another password", of::<ActionLink>),
    act("/api/v1/users/{id}/anonymise", May(Administer), "Forget who a user was", of::<UserView>),
    list("/api/v1/api-keys", May(Enrol), "API keys", of::<Page<ApiKeyView>>),
    make("/api/v1/api-keys", May(Enrol), "Make an API key", api_key, of::<NewApiKey>),
    act("/api/v1/api-keys/{id}/revoke", May(Enrol), "End an API key for good", of::<ApiKeyView>),
    Operation {
        query: &[LIMIT, CURSOR, ("status", of::<OrderStatus>)],
        ..list("/api/v1/orders", May(Watch), "Orders, newest first", of::<Page<OrderView>>)
    },
    make("/api/v1/orders", May(Order), "Place an order", order, of::<OrderView>),
    get("/api/v1/orders/{id}", May(Watch), "One order", of::<OrderView>),
    act("/api/v1/orders/{id}/cancel", May(Order), "End an order", of::<OrderView>),
    act("/api/v1/orders/{id}/retry", May(Order), "Another try of what failed or is held", of::<OrderView>),
    act("/api/v1/orders/{id}/expire", May(Order), "End the link now", of::<OrderView>),
    act("/api/v1/orders/{id}/extend", May(Order), "Keep the link longer", of::<OrderView>),
    with(act("/api/v1/orders/{id}/ship", May(Ship), "Say what was sent", of::<OrderView>), shipment),
    get("/api/v1/orders/{id}/explain", May(Watch), "The order's story in sentences", of::<Explanation>),
    get("/api/v1/load", May(Watch), "What there is to do and who is there", of::<LoadView>),
    get("/api/v1/orders/{id}/estimate", May(Watch), "Its place in the queue and its end", of::<Estimate>),
    get("/api/v1/presence", May(Look), "Who works here and who calls for help", of::<Page<PresenceView>>),
    get("/api/v1/jobs", May(Administer), "What runs by itself, and how it went", of::<Page<JobView>>),
    act("/api/v1/jobs/{id}/run", May(Administer), "Run a job now", of::<JobView>),
    get("/api/v1/maintenance", Known, "Whether the site is being maintained", of::<Maintenance>),
    with(act("/api/v1/maintenance", May(Administer), "Begin or end it", of::<Maintenance>), maintenance),
    with(act("/api/v1/tasks/{id}/log", May(Log), "Add to a task's log", of::<LogView>), of::<LogPiece>),
    get("/api/v1/tasks/{id}/logs", May(Look), "The logs of a task", of::<Page<LogView>>),
    Operation {
        answer: Answer::Text("text/plain"),
        ..get("/api/v1/tasks/{id}/logs/{kind}", May(Look), "One log", text)
    },
    list("/api/v1/auto-images", May(Look), "Images made on a schedule", of::<Page<AutoImageView>>),
    make(
        "/api/v1/auto-images",
        May(Order),
        "Have an image made on a schedule",
        auto_image,
        of::<AutoImageView>,
    ),
    get("/api/v1/auto-images/{id}", May(Look), "One of them", of::<AutoImageView>),
    with(
        act("/api/v1/auto-images/{id}/update", May(Order), "Change one", of::<AutoImageView>),
        auto_image_change,
    ),
    act("/api/v1/auto-images/{id}/trigger", May(Order), "Have one made now", of::<AutoImageView>),
    act("/api/v1/auto-images/{id}/delete", May(Order), "Serve one no more", of::<AutoImageView>),
    get("/api/v1/auto/{name}", Open, "What is served by this name", of::<AutoImageView>),
    Operation {
        answer: Answer::Elsewhere,
        ..get("/api/v1/auto/{name}/image", Open, "The image of this name", text)
    },
    list("/api/v1/account-hooks", May(Administer), "Who may make accounts", of::<Page<AccountHook>>),
    Operation {
        answer: Answer::Json(201, of::<NewAccountHook>),
        ..with(
            act("/api/v1/account-hooks", May(Administer), "Let a web site make accounts", any),
            account_hook,
        )
    },
    act("/api/v1/account-hooks/{id}/revoke", May(Administer), "End a hook for good", of::<AccountHook>),
    with(
        act("/api/v1/account-hooks/{id}/purchase", Open, "An account for a purchase", of::<HookAnswer>),
        of::<Purchase>,
    ),
    act("/api/v1/orders/{id}/anonymise", May(Order), "Forget who gets an ended order", of::<OrderView>),
    act("/api/v1/orders/{id}/delete", May(Order), "Remove an ended order and its tasks", of::<OrderView>),
    Operation {
        answer: Answer::Json(201, of::<ActionLink>),
        ..with(
            act("/api/v1/orders/{id}/action-links", May(Ship), "A link for one act", of::<ActionLink>),
            of::<NewActionLink>,
        )
    },
    with(
        act("/api/v1/action-links/look", Open, "What a link would do", of::<ActionLinkView>),
        of::<LinkToken>,
    ),
    with(act("/api/v1/action-links/use", Open, "Do what a link is for", of::<OrderView>), of::<UseLink>),
    list("/api/v1/images", May(Watch), "Images of orders", of::<Page<ImageView>>),
    Operation {
        query: ORDER_PAGE,
        ..list("/api/v1/cards", May(Watch), "Written cards", of::<Page<CardView>>)
    },
    get("/api/v1/cards/{uid}", May(Watch), "One card", of::<CardView>),
    Operation { query: ORDER_PAGE, ..list("/api/v1/tasks", May(Look), "Tasks", of::<Page<TaskView>>) },
    Operation {
        answer: Answer::Maybe(of::<CreationTask>),
        ..with(act("/api/v1/tasks/claim", May(Create), "Take a creation task", any), of::<Claim>)
    },
    with(
        act("/api/v1/tasks/{id}/report", May(Create), "Say how a task goes", of::<ReportAnswer>),
        of::<CreationReport>,
    ),
    list("/api/v1/appliances", May(Look), "Appliances", of::<Page<ApplianceView>>),
    get("/api/v1/appliances/{id}", May(Look), "One appliance", of::<ApplianceView>),
    with(act("/api/v1/appliances/{id}/approve", May(Enrol), "Let it work", of::<ApplianceView>), channels),
    act("/api/v1/appliances/{id}/reject", May(Enrol), "Refuse it, or take it out", of::<ApplianceView>),
    act("/api/v1/appliances/{id}/reboot", May(Tend), "Restart it between cards", of::<CommandReply>),
    act("/api/v1/appliances/{id}/logs", May(Tend), "The newest lines of its log", of::<CommandReply>),
    list("/api/v1/updates", May(Administer), "Versions of appliances, rolled out", of::<Page<RolloutView>>),
    Operation {
        answer: Answer::Json(201, of::<NewRollout>),
        ..with(act("/api/v1/updates", May(Administer), "Roll a version out", of::<NewRollout>), update)
    },
    act("/api/v1/updates/{id}/pause", May(Administer), "Tell nobody for now", of::<RolloutView>),
    act("/api/v1/updates/{id}/resume", May(Administer), "Tell appliances, ring by ring", of::<RolloutView>),
    act("/api/v1/updates/{id}/stop", May(Administer), "Tell nobody any more", of::<RolloutView>),
    Operation {
        answer: Answer::Text("application/gzip"),
        ..act("/api/v1/appliances/{id}/support", May(Tend), "A file for whoever helps, without secrets", text)
    },
    with(act("/api/v1/appliances/{id}/log-level", May(Tend), "How much it logs", of::<CommandReply>), level),
    with(act("/api/v1/support", May(Log), "Hand in the file for whoever helps", any), of::<SupportFile>),
    act("/api/v1/appliances/{id}/update", May(Tend), "Try its update once more", of::<CommandReply>),
    list("/api/v1/join-tokens", May(Enrol), "Join tokens", of::<Page<JoinTokenView>>),
    make("/api/v1/join-tokens", May(Enrol), "Make a join token", channels, of::<NewJoinToken>),
    act("/api/v1/join-tokens/{id}/revoke", May(Enrol), "End an unused one", of::<JoinTokenView>),
    list("/api/v1/slots", May(Watch), "Slots and what they do", of::<Page<SlotView>>),
    with(
        act("/api/v1/slots/{appliance}/{slot}/hold", May(Tend), "Give a slot no cards", of::<SlotHoldView>),
        hold,
    ),
    act("/api/v1/slots/{appliance}/{slot}/resume", May(Tend), "Let a held slot go on", of::<SlotHoldView>),
    with(act("/api/v1/slots/{appliance}/{slot}/name", May(Tend), "Name a slot", of::<SlotHoldView>), name),
    act("/api/v1/slots/{appliance}/{slot}/identify", May(Tend), "Strobe its light", of::<CommandReply>),
    act("/api/v1/slots/{appliance}/{slot}/eject", May(Tend), "Let go of the card", of::<CommandReply>),
    act("/api/v1/slots/{appliance}/{slot}/retry", May(Tend), "Try the card again", of::<CommandReply>),
    act("/api/v1/slots/{appliance}/{slot}/release", May(Tend), "Allow to erase the card", of::<CommandReply>),
    Operation {
        query: &[LANG],
        answer: Answer::File(&["application/pdf"]),
        ..get("/api/v1/orders/{id}/slip.pdf", May(Watch), "The slip that goes into the parcel", text)
    },
    labels("/api/v1/orders/{id}/labels", May(Watch), "A label for each of its cards"),
    labels("/api/v1/cards/{uid}/label", May(Watch), "The card's label"),
    labels("/api/v1/appliances/{id}/labels", May(Look), "A label for each of its slots"),
    Operation {
        query: &[
            LIMIT,
            CURSOR,
            ("order", of::<cardshop_protocol::ids::ObjectId>),
            ("state", of::<MessageState>),
        ],
        ..list(
            "/api/v1/messages",
            May(Order),
            "What was sent to whom, and what was not",
            of::<Page<MessageView>>,
        )
    },
    with(act("/api/v1/messages/test", May(Administer), "Send a test letter", of::<MessageView>), to),
    act("/api/v1/messages/{id}/send", May(Order), "Send it once more", of::<MessageView>),
    list("/api/v1/webhooks", May(Listen), "Who is called", of::<Page<WebhookView>>),
    Operation {
        answer: Answer::Json(201, of::<NewWebhook>),
        ..with(act("/api/v1/webhooks", May(Listen), "Have an address called", any), webhook)
    },
    act("/api/v1/webhooks/{id}/delete", May(Listen), "Call it no more", of::<WebhookView>),
    act("/api/v1/webhooks/{id}/test", May(Listen), "Call it with a test", of::<MessageView>),
    list("/api/v1/webhooks/{id}/deliveries", May(Listen), "What it was told", of::<Page<MessageView>>),
    act(
        "/api/v1/webhooks/{id}/deliveries/{message}/send",
        May(Listen),
        "Tell it once more",
        of::<MessageView>,
    ),
    get("/api/v1/templates", May(Administer), "Templates of letters", of::<Page<TemplateView>>),
    with(
        act("/api/v1/templates/{event}/{language}", May(Administer), "Change a template", of::<TemplateView>),
        template,
    ),
    act(
        "/api/v1/templates/{event}/{language}/reset",
        May(Administer),
        "Take the template that comes with the program",
        of::<TemplateView>,
    ),
    with(
        act("/api/v1/templates/{event}/{language}/preview", May(Administer), "Show a letter", of::<Preview>),
        draft,
    ),
    with(
        act(
            "/api/v1/templates/{event}/{language}/test",
            May(Administer),
            "Send its example",
            of::<MessageView>,
        ),
        to,
    ),
    get("/api/v1/me/notifications", Known, "What the caller is told of", of::<PreferencesView>),
    with(
        act("/api/v1/me/notifications", Known, "Choose what one is told of", of::<PreferencesView>),
        preferences,
    ),
    get("/api/v1/users/{id}/notifications", May(Administer), "What a user is told of", of::<PreferencesView>),
    with(
        act("/api/v1/users/{id}/notifications", May(Administer), "Choose for a user", of::<PreferencesView>),
        preferences,
    ),
    Operation {
        query: &[("last_event_id", number)],
        answer: Answer::Text("text/event-stream"),
        ..get("/api/v1/live", May(Watch), "What changes, as server-sent events", text)
    },
];

const LIMIT: Parameter = ("limit", limit);
const CURSOR: Parameter = ("cursor", cursor);
const PAGE: &[Parameter] = &[LIMIT, CURSOR];
const CONTENT: &[Parameter] =
    &[LIMIT, CURSOR, ("search", text), ("language", text), ("sort", of::<ContentOrder>)];
const AUDIT_PAGE: &[Parameter] = &[
    LIMIT,
    CURSOR,
    ("who", text),
    ("action", text),
    ("object", text),
    ("from", of::<Timestamp>),
    ("to", of::<Timestamp>),
];
const ORDER_PAGE: &[Parameter] = &[LIMIT, CURSOR, ("order", of::<cardshop_protocol::ids::ObjectId>)];

const LANG: Parameter = ("lang", of::<crate::papers::Language>);

fn of<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn level(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"level": {"type": "string"}}})
}

/// What a roll-out is made from.
fn update(generator: &mut SchemaGenerator) -> Schema {
    let version = generator.subschema_for::<cardshop_protocol::update::Version>();
    let image = generator.subschema_for::<cardshop_protocol::ids::ImageId>();
    let kid = generator.subschema_for::<cardshop_protocol::ids::KeyId>();
    json_schema!({
        "type": "object",
        "required": ["version", "image", "size", "kid"],
        "properties": {
            "version": version, "image": image, "size": {"type": "integer"}, "kid": kid,
            "keys": {"type": "array", "items": {"type": "string"}},
            "rings": {"type": "array", "items": {"type": "integer"}},
            "first": {"type": "array", "items": {"type": "string"}},
            "allow_older": {"type": "boolean"},
        },
    })
}

fn any(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}

fn text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

fn boolean(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "boolean"})
}

fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": u64::MAX})
}

fn label_format(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"enum": crate::papers::Format::ALL.map(crate::papers::Format::name)})
}

fn limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 1_000_000})
}

fn cursor(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[!-~]{1,128}$"})
}

fn health(_: &mut SchemaGenerator) -> Schema {
    let word = || serde_json::json!({"enum": ["ok", "failed"]});
    json_schema!({
        "type": "object",
        "required": ["status", "components", "version"],
        "properties": {
            "status": word(),
            "components": {"type": "object", "additionalProperties": word()},
            "version": {"type": "string"},
        },
    })
}

// Bodies that are read field by field, so that an error names the field. A field that is null counts as left out.

fn slug_list() -> serde_json::Value {
    serde_json::json!({"type": ["array", "null"], "items": {"type": "string"}})
}

fn to(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"to": {"type": ["string", "null"], "maxLength": 254}}})
}

fn webhook(generator: &mut SchemaGenerator) -> Schema {
    let event = generator.subschema_for::<Notice>();
    json_schema!({
        "type": "object",
        "required": ["url", "events"],
        "properties": {
            "url": {"type": "string"},
            "events": {"type": "array", "items": event},
            "kind": {"enum": ["webhook", "ntfy", null]},
            "channels": slug_list(),
            "language": {"type": ["string", "null"]},
        },
    })
}

fn template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["subject", "body"],
        "properties": {"subject": {"type": "string"}, "body": {"type": "string"}},
    })
}

fn draft(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {"subject": {"type": ["string", "null"]}, "body": {"type": ["string", "null"]}},
    })
}

fn preferences(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "language": {"type": ["string", "null"]},
            "time_zone": {"type": ["string", "null"]},
            "events": {"type": ["object", "null"], "additionalProperties": {"type": "boolean"}},
        },
    })
}

fn own_password(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["old", "new"],
        "properties": {"old": {"type": "string"}, "new": {"type": "string"}},
    })
}

fn confirmation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "required": ["password"], "properties": {"password": {"type": "string"}},
    })
}

fn expiry(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "properties": {"expires": {"type": ["string", "null"], "format": "date-time"}},
    })
}

fn new_password(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object", "required": ["password"], "properties": {"password": {"type": "string"}},
    })
}

fn channel_fields() -> serde_json::Value {
    serde_json::json!({
        "name": {"type": ["string", "null"]},
        "active": {"type": ["boolean", "null"]},
        "private": {"type": ["boolean", "null"]},
        "sender_name": {"type": ["string", "null"]},
        "sender_address": {"type": ["string", "null"]},
        "sender_email": {"type": ["string", "null"]},
    })
}

fn channel(_: &mut SchemaGenerator) -> Schema {
    let mut properties = channel_fields();
    properties["slug"] = serde_json::json!({"type": "string"});
    json_schema!({"type": "object", "required": ["slug"], "properties": properties})
}

fn channel_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": channel_fields()})
}

fn warehouse(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "required": ["url"], "properties": {"url": {"type": "string"}}})
}

fn configuration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["name", "recipe"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "recipe": {"type": "object"},
            "channel": {"type": ["string", "null"]},
        },
    })
}

fn configuration_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["version"],
        "properties": {
            "version": {"type": "integer", "minimum": 1, "maximum": u64::MAX},
            "name": {"type": ["string", "null"]},
            "recipe": {"type": ["object", "null"]},
        },
    })
}

fn imported_configuration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["schema", "name", "recipe"],
        "properties": {
            "schema": {"type": "integer", "minimum": 1, "maximum": 1},
            "name": {"type": "string", "minLength": 1},
            "recipe": {"type": "object"},
            "channel": {"type": ["string", "null"]},
            "secrets_left_out": {"type": ["array", "null"], "items": {"type": "string"}},
            "exported": {"type": ["string", "null"]},
        },
        "additionalProperties": false,
    })
}

fn address_fields() -> serde_json::Value {
    let text = || serde_json::json!({"type": ["string", "null"]});
    serde_json::json!({
        "name": text(), "company": text(), "postal_code": text(), "city": text(), "region": text(), "email": text(),
        "street": slug_list(), "country": text(), "phone": text(), "language": {"enum": ["en", "fr", null]},
    })
}

fn address(_: &mut SchemaGenerator) -> Schema {
    let mut properties = address_fields();
    properties["channel"] = serde_json::json!({"type": ["string", "null"]});
    json_schema!({"type": "object", "properties": properties})
}

fn address_change(_: &mut SchemaGenerator) -> Schema {
    let mut properties = address_fields();
    properties["version"] = serde_json::json!({"type": "integer", "minimum": 1, "maximum": u64::MAX});
    json_schema!({"type": "object", "required": ["version"], "properties": properties})
}

fn media(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["name", "advertised_bytes"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "advertised_bytes": {"type": "integer", "minimum": 1, "maximum": u64::MAX},
            "usable_bytes": {"type": ["integer", "null"], "minimum": 1, "maximum": u64::MAX},
        },
    })
}

fn media_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "name": {"type": ["string", "null"]},
            "usable_bytes": {"type": ["integer", "null"], "minimum": 1, "maximum": u64::MAX},
        },
    })
}

fn user_fields() -> serde_json::Value {
    serde_json::json!({
        "email": {"type": ["string", "null"]},
        "links_only": {"type": ["boolean", "null"]},
        "role": {"enum": ["staff", "manager", "operator", "creator", "integrator"]},
        "channels": slug_list(),
        "organization": {"type": ["string", "null"]},
    })
}

fn user(_: &mut SchemaGenerator) -> Schema {
    let mut properties = user_fields();
    properties["username"] = serde_json::json!({"type": "string"});
    properties["password"] = serde_json::json!({"type": ["string", "null"]});
    properties["expires"] = serde_json::json!({"type": ["string", "null"], "format": "date-time"});
    json_schema!({"type": "object", "required": ["username", "role"], "properties": properties})
}

/// What is null is taken away.
fn user_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": user_fields()})
}

fn organization_fields() -> serde_json::Value {
    serde_json::json!({
        "name": {"type": ["string", "null"]},
        "channel": {"type": ["string", "null"]},
        "warehouses": {"type": ["array", "null"], "items": {"type": "string"}},
        "language": {"enum": ["en", "fr", null]},
        "several_orders": {"type": ["boolean", "null"]},
    })
}

fn organization(_: &mut SchemaGenerator) -> Schema {
    let mut properties = organization_fields();
    properties["name"] = serde_json::json!({"type": "string", "minLength": 1});
    properties["units"] = serde_json::json!({
        "type": ["integer", "null"], "minimum": 0, "maximum": crate::core::units::MAX_UNITS,
    });
    json_schema!({"type": "object", "required": ["name"], "properties": properties})
}

fn organization_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": organization_fields()})
}

fn units(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["add"],
        "properties": {
            "add": {"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX},
            "reason": {"type": ["string", "null"]},
        },
    })
}

fn api_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "rights": {"type": ["array", "null"], "items": {"enum": ["watch", "order", "ship"]}},
            "channels": slug_list(),
            "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 1825},
        },
    })
}

fn order(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["configuration"],
        "properties": {
            "configuration": {"type": "string"},
            "kind": {"enum": ["physical", "virtual", null]},
            "media": {"type": ["string", "integer", "null"]},
            "quantity": {"type": ["integer", "null"], "minimum": 1, "maximum": crate::core::order::MAX_QUANTITY},
            "recipient": {"type": ["object", "string", "null"]},
            "address": {"type": ["string", "null"]},
            "channel": {"type": ["string", "null"]},
            "warehouse": {"type": ["string", "null"]},
            "mirrors": {"type": ["array", "null"], "items": {"type": "string"}},
            "name": {"type": ["string", "null"]},
            "priority": {"type": ["integer", "null"], "minimum": i32::MIN, "maximum": i32::MAX},
        },
    })
}

fn maintenance(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["on"],
        "properties": {"on": {"type": "boolean"}, "reason": {"type": ["string", "null"]}},
    })
}

fn auto_image_fields() -> serde_json::Value {
    serde_json::json!({
        "configuration": {"type": ["string", "null"]},
        "public": {"type": ["boolean", "null"]},
        "paused": {"type": ["boolean", "null"]},
        "every_days": {"type": ["integer", "null"], "minimum": 1, "maximum": crate::core::auto_image::MAX_DAYS},
    })
}

fn auto_image(_: &mut SchemaGenerator) -> Schema {
    let mut properties = auto_image_fields();
    properties["name"] = serde_json::json!({"type": "string"});
    properties["channel"] = serde_json::json!({"type": ["string", "null"]});
    properties["configuration"] = serde_json::json!({"type": "string"});
    json_schema!({"type": "object", "required": ["name", "configuration"], "properties": properties})
}

fn auto_image_change(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": auto_image_fields()})
}

fn account_hook(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "channel": {"type": ["string", "null"]},
            "organization": {"type": ["string", "null"]},
        },
    })
}

fn shipment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "count": {"type": ["integer", "null"], "minimum": 1, "maximum": crate::core::order::MAX_QUANTITY},
            "tracking": {"type": ["string", "null"]},
        },
    })
}

fn channels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"channels": slug_list()}})
}

fn hold(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"reason": {"type": ["string", "null"]}}})
}

fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "properties": {"name": {"type": ["string", "null"]}}})
}
