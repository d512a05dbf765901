//! What a configuration needs on a card, in words: the box that list, editor and order form share.

use cardshop_scheduler::core::configurations::SizeView;

use crate::locale::Locale;

/// A box of sizes.
pub(crate) struct Needs {
    pub(crate) image: String,
    pub(crate) content: String,
    /// Name of the smallest card and what stays free on it.
    pub(crate) card: Option<(String, String)>,
    pub(crate) uncounted: Vec<String>,
    /// Names of content that is gone, each with what there is instead.
    pub(crate) gone: Vec<(String, String)>,
    /// When the catalogue was read.
    pub(crate) read: String,
}

impl Needs {
    pub(crate) fn of(size: &SizeView, locale: &Locale) -> Self {
        let w = locale.words;
        let named = |name: &str, flavour: &Option<String>| match flavour.as_deref() {
            None | Some("") => name.to_owned(),
            Some(flavour) => format!("{name} {flavour}"),
        };
        let others = |others: &[String]| match others {
            [] => String::new(),
            some => w.there_is(&some.join(", ")),
        };
        Self {
            image: locale.size(&size.image_bytes),
            content: locale.size(&size.content_bytes),
            card: size
                .media
                .as_ref()
                .map(|media| (media.name.clone(), locale.size(&size.free_bytes.unwrap_or_default()))),
            uncounted: size.uncounted.clone(),
            gone: size.vanished.iter().map(|v| (named(&v.name, &v.flavour), others(&v.others))).collect(),
            read: size.catalogue_read.map(|at| w.catalogue_read(&locale.moment(&at))).unwrap_or_default(),
        }
    }
}
