//! Every text of the pages, in each language. A language is one file; a text that it lacks is a compile error. A text
//! with `{name}` in it gets values by [`Words`]' methods; a test compares the names of all languages. It decides
//! nothing else; `locale` chooses the language.

mod back;
mod en;
mod fr;

pub(crate) use back::Back;

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    French,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::English, Self::French];

    /// **Source:** BCP 47.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::French => "fr",
        }
    }

    /// The language with this tag.
    pub(crate) fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.tag() == tag)
    }

    pub(crate) fn words(self) -> &'static Words {
        match self {
            Self::English => &en::WORDS,
            Self::French => &fr::WORDS,
        }
    }

    /// The texts of the back office.
    pub(crate) fn back(self) -> &'static Back {
        match self {
            Self::English => &back::ENGLISH,
            Self::French => &back::FRENCH,
        }
    }
}

/// Puts values in the place of their names.
fn fill(text: &str, values: &[(&str, &dyn std::fmt::Display)]) -> String {
    values
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value.to_string()))
}

/// Declares the texts.
macro_rules! words {
    ($($key:ident)*) => {
        /// The texts of one language.
        pub(crate) struct Words {
            pub(crate) language: Language,
            $(pub(crate) $key: &'static str,)*
        }

        #[cfg(test)]
        impl Words {
            /// Each text with its key.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($key), self.$key)),*]
            }
        }
    };
}

words! {
    // The language's own name, and what every page has.
    language_name bench orders appliances cards statistics preferences log_in log_out user_name password
    scan scan_help skip_to_content save next_page nothing_here
    waiting_appliances // {count}
    wrong_login too_many_attempts not_allowed not_found page_failed went_wrong
    // Preferences.
    language_label time_zone time_zone_help saved
    // The bench.
    as_loaded live connection_lost no_slots offline_tile full_screen sound_on sound_off arrange_help
    identify retry hold resume release erase eject rename name_of_slot
    ready_at // {time}
    copy_of // {copy} {total}
    done_identify done_retry done_hold done_resume done_release done_eject done_name
    // Slot states.
    absent empty wanted idle checking waiting writing verifying done unsuitable guarded confirm bad_card try_again
    held out_of_service
    // Sentences of the LED language.
    say_insert // {size}
    say_checking
    say_waiting // {percent}
    say_writing say_verifying
    say_take // {copy} {total}
    say_too_small // {min} {actual}
    say_locked
    say_guarded // {order}
    say_confirm say_bad_card say_reinsert
    say_out_of_service // {reason}
    // Orders.
    order new_order name kind physical virtual_kind configuration media any_media quantity recipient
    recipient_name recipient_address recipient_country recipient_email channel place_order placed created_at created_by
    status all_statuses search verified_of // {verified} {quantity}
    shipped_count balance // {units}
    not_a_number choose_configuration
    status_created status_creating status_ready status_writing status_written status_shipped status_available
    status_expired status_canceled status_failed
    now_title story_title history_title shipments_title actions_title image download tracking ship_count ship
    ship_help cancel_order cancel_order_help retry_order expire_order extend_order order_again
    done_cancel done_retry_order done_expire done_extend done_ship available_until priority
    story_language position // {position}
    finish // {half} {most}
    // Appliances.
    label state code waiting_for_approval rejected retired online offline heard hardware memory agent_version
    slots slot reader port alerts approve reject retire approve_help no_appliances new_appliance new_appliance_help
    make_join_file since channels updating stopped reboot show_log log_of // {label}
    done_approve done_reject done_reboot join_file_help slot_labels
    // Cards.
    card copy finished written_bytes write_rate verify_rate card_size appliance spare spare_card uid
    label_sheet export_csv export_json no_cards passport of_order // {order}
    passport_none signature
    // Papers.
    slip print_labels label_paper label_start
    // Statistics.
    yield_title yield_by_slot yield_by_reader yield_by_image card_make make_hidden count_cards failures share mean_write mean_verify
    orders_by_status duration_title mean_duration newest_cards // {count}
    // Screens on the wall.
    screen screens screens_help screen_name screen_make screen_made screen_open screen_revoke done_revoke screen_enter
    screen_key screen_show
    // Versions of the appliances.
    support_file updates updates_help update_paused update_running update_stopped update_waits update_under_way update_done
    update_failed update_lost update_key update_pause update_resume update_stop update_runs update_ring done_update
    // Scanning.
    scan_unknown // {code}
    scan_first
    // Configurations, addresses and sizes of cards.
    configurations configurations_help new_configuration whose everybodys mine_only changed_at edit duplicate
    delete_it delete_ask // {name}
    delete_help keep_it import_title import_file import_button export_plain export_secrets no_file not_a_form
    general_title general_help wifi_name wifi_password admin_name admin_password hotspot_language hotspot_zone
    base_address base_size branding_title branding_help colour logo favicon remove_logo remove_favicon preview
    content_title content_help no_catalogue catalogue_read // {time}
    all_languages sort by_title by_size by_newest only_chosen
    title size category apps_title apps_help app app_image app_ports app_volumes app_environment size_title
    image_size content_size smallest_card stays_free no_card_fits not_counted gone_title gone_help there_is // {others}
    compute by_hand copy_first done_made done_deleted done_duplicated done_imported addresses new_address person
    company street postal_code city region country phone language_of_letters parcels reaches reaches_not // {missing}
    media_title printed_size usable_size measured measured_cards // {count} {smallest}
    use_measured new_media from_the_book as_typed too_small_for // {name} {size}
    costs // {units} {balance}
    too_dear waits_for // {name}
    no_estimate
}

impl Words {
    pub(crate) fn waiting_appliances(&self, count: usize) -> String {
        fill(self.waiting_appliances, &[("count", &count)])
    }
    pub(crate) fn ready_at(&self, time: &str) -> String {
        fill(self.ready_at, &[("time", &time)])
    }
    pub(crate) fn copy_of(&self, copy: u32, total: u32) -> String {
        fill(self.copy_of, &[("copy", &copy), ("total", &total)])
    }
    pub(crate) fn verified_of(&self, verified: &u32, quantity: &u32) -> String {
        fill(self.verified_of, &[("verified", verified), ("quantity", quantity)])
    }
    pub(crate) fn position(&self, position: &usize) -> String {
        fill(self.position, &[("position", position)])
    }
    pub(crate) fn finish(&self, half: String, most: String) -> String {
        fill(self.finish, &[("half", &half), ("most", &most)])
    }
    pub(crate) fn balance(&self, units: &u64) -> String {
        fill(self.balance, &[("units", units)])
    }
    pub(crate) fn say_insert(&self, size: &str) -> String {
        fill(self.say_insert, &[("size", &size)])
    }
    pub(crate) fn say_waiting(&self, percent: u8) -> String {
        fill(self.say_waiting, &[("percent", &percent)])
    }
    pub(crate) fn say_take(&self, copy: u32, total: u32) -> String {
        fill(self.say_take, &[("copy", &copy), ("total", &total)])
    }
    pub(crate) fn say_too_small(&self, min: &str, actual: &str) -> String {
        fill(self.say_too_small, &[("min", &min), ("actual", &actual)])
    }
    pub(crate) fn say_guarded(&self, order: &str) -> String {
        fill(self.say_guarded, &[("order", &order)])
    }
    pub(crate) fn say_out_of_service(&self, reason: &str) -> String {
        fill(self.say_out_of_service, &[("reason", &reason)])
    }
    pub(crate) fn log_of(&self, label: &str) -> String {
        fill(self.log_of, &[("label", &label)])
    }
    pub(crate) fn of_order(&self, order: &str) -> String {
        fill(self.of_order, &[("order", &order)])
    }
    pub(crate) fn newest_cards(&self, count: &usize) -> String {
        fill(self.newest_cards, &[("count", count)])
    }
    pub(crate) fn scan_unknown(&self, code: &str) -> String {
        fill(self.scan_unknown, &[("code", &code)])
    }
    pub(crate) fn delete_ask(&self, name: &dyn std::fmt::Display) -> String {
        fill(self.delete_ask, &[("name", name)])
    }
    pub(crate) fn catalogue_read(&self, time: &dyn std::fmt::Display) -> String {
        fill(self.catalogue_read, &[("time", time)])
    }
    pub(crate) fn there_is(&self, others: &dyn std::fmt::Display) -> String {
        fill(self.there_is, &[("others", others)])
    }
    pub(crate) fn reaches_not(&self, missing: &dyn std::fmt::Display) -> String {
        fill(self.reaches_not, &[("missing", missing)])
    }
    pub(crate) fn measured_cards(
        &self,
        count: &dyn std::fmt::Display,
        smallest: &dyn std::fmt::Display,
    ) -> String {
        fill(self.measured_cards, &[("count", count), ("smallest", smallest)])
    }
    pub(crate) fn too_small_for(&self, name: &dyn std::fmt::Display, size: &dyn std::fmt::Display) -> String {
        fill(self.too_small_for, &[("name", name), ("size", size)])
    }
    pub(crate) fn costs(&self, units: &dyn std::fmt::Display, balance: &dyn std::fmt::Display) -> String {
        fill(self.costs, &[("units", units), ("balance", balance)])
    }
    pub(crate) fn waits_for(&self, name: &dyn std::fmt::Display) -> String {
        fill(self.waits_for, &[("name", name)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names in braces of a text.
    fn names(text: &str) -> Vec<&str> {
        let mut names: Vec<_> =
            text.split('{').skip(1).map(|part| part.split('}').next().expect("a part")).collect();
        names.sort_unstable();
        names
    }

    fn all(language: Language) -> Vec<(&'static str, &'static str)> {
        language.words().all().into_iter().chain(language.back().all()).collect()
    }

    #[test]
    fn every_language_has_every_text_with_the_same_values_in_it() {
        let english = all(Language::English);
        for language in Language::ALL {
            for ((key, text), (_, model)) in all(language).into_iter().zip(&english) {
                assert!(!text.trim().is_empty(), "{key} in {}", language.tag());
                assert_eq!(names(text), names(model), "{key} in {}", language.tag());
            }
        }
    }

    #[test]
    fn french_is_not_english() {
        let (english, french) = (all(Language::English), all(Language::French));
        let same: Vec<_> =
            english.iter().zip(&french).filter(|(a, b)| a.1 == b.1).map(|(a, _)| a.0).collect();
        assert!(same.len() < english.len() / 10, "the same in both languages: {same:?}");
    }
}
