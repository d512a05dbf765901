//! The texts of the back office, the account and the public pages: English and French side by side, for whoever changes one
//! has to see the other. A text that lacks a language is a compile error.

/// Declares the texts.
macro_rules! texts {
    ($($key:ident: $english:literal, $french:literal;)*) => {
        /// The texts of the back office in one language.
        pub(crate) struct Back {
            $(pub(crate) $key: &'static str,)*
        }

        pub(super) static ENGLISH: Back = Back { $($key: $english,)* };
        pub(super) static FRENCH: Back = Back { $($key: $french,)* };

        #[cfg(test)]
        impl Back {
            /// Each text with its key.
            pub(super) fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($key), self.$key)),*]
            }
        }
    };
}

texts! {
    back_office: "Back office", "Gestion";
    account: "Account", "Compte";
    choose: "Choose", "Choisir";
    with_chosen: "With those chosen:", "Pour ceux choisis :";
    none_chosen: "Choose at least one", "Choisissez au moins un";
    no_back: "No, back", "Non, retour";
    yes: "Yes", "Oui";
    no: "No", "Non";
    all: "All", "Tout";
    none: "None", "Aucun";
    name: "Name", "Nom";
    edit: "Change", "Modifier";
    save: "Save", "Enregistrer";
    delete: "Delete", "Supprimer";
    disable: "Lock out", "Bloquer";
    enable: "Let in again", "Débloquer";
    revoke: "End", "Mettre fin";
    pause: "Pause", "Suspendre";
    resume: "Go on", "Reprendre";
    make: "Make", "Créer";
    add: "Add", "Ajouter";
    filter: "Show", "Afficher";
    from: "From", "Du";
    to: "To", "Au";
    what: "What", "Quoi";
    who: "Who", "Qui";
    when: "When", "Quand";
    object: "Object", "Objet";
    address: "Address", "Adresse";
    state: "State", "État";
    created: "Made", "Créé";
    made_by: "By", "Par";
    expires: "Ends", "Fin";
    last_used: "Last used", "Dernier usage";
    channels: "Channels", "Canaux";
    channel: "Channel", "Canal";
    actions: "Acts", "Actions";
    not_a_day: "is not a day, such as 2026-12-31", "n’est pas une date, comme 2026-12-31";
    is_disabled: "Locked out", "Bloqué";
    is_active: "Active", "Actif";
    is_expired: "Ended", "Terminé";
    is_forgotten: "Forgotten", "Oublié";
    is_revoked: "Ended", "Terminé";
    is_used: "Used", "Utilisé";
    is_open: "Open", "Ouvert";
    is_closed: "Closed", "Fermé";
    is_private: "Private", "Privé";
    is_paused: "Paused", "Suspendu";
    done_ended: "Ended", "Terminé";
    done_all: "Done for all that were chosen", "Fait pour tous ceux choisis";
    done_units: "The units are booked", "Les unités sont comptées";
    done_running: "It ran", "Exécuté";
    some_refused: "Not done for these", "Pas fait pour ceux-ci";
    are_you_sure: "This cannot be undone. Do you mean it?", "C’est irréversible. Êtes-vous sûr ?";
    group_people: "People", "Personnes";
    group_work: "Work", "Travail";
    group_site: "The site", "Le site";
    left_title: "What is left to set up", "Ce qu’il reste à régler";
    left_done: "Everything is set up.", "Tout est réglé.";
    organizations: "Organizations", "Organisations";
    organizations_help: "Who pays for orders, in units: one for a card, or for a fortnight of a download", "Qui paie les commandes, en unités : une par carte, ou par quinzaine de téléchargement";
    organization: "Organization", "Organisation";
    new_organization: "New organization", "Nouvelle organisation";
    units: "Units", "Unités";
    units_book: "Add or take units", "Ajouter ou retirer des unités";
    units_add: "Units to add; negative takes them away", "Unités à ajouter ; négatif pour en retirer";
    reason: "Reason", "Motif";
    book: "Book", "Comptabiliser";
    language: "Language", "Langue";
    several_orders: "May have several open orders", "Peut avoir plusieurs commandes ouvertes";
    warehouses_of: "Its images are kept in", "Ses images sont gardées dans";
    delete_organization: "Remove the organization", "Supprimer l’organisation";
    users: "Users", "Utilisateurs";
    user: "User", "Utilisateur";
    users_help: "People and creators who log in, and what they may do", "Les personnes et créateurs qui se connectent, et leurs droits";
    new_user: "New user", "Nouvel utilisateur";
    new_user_help: "Without a password it gets an invitation: a link with which it sets its own", "Sans mot de passe il reçoit une invitation : un lien pour choisir le sien";
    role: "Role", "Rôle";
    role_staff: "Staff", "Équipe";
    role_manager: "Manager", "Responsable";
    role_operator: "Operator", "Opérateur";
    role_creator: "Creator", "Créateur d’images";
    role_integrator: "Integrator", "Intégrateur";
    email: "E-mail", "E-mail";
    may_order_cards: "May order cards, not only downloads", "Peut commander des cartes, pas seulement des téléchargements";
    expires_help: "The last day it may log in; empty is for good", "Dernier jour de connexion ; vide, sans fin";
    new_password: "New password", "Nouveau mot de passe";
    set_password: "Set the password", "Changer le mot de passe";
    invite: "Make an invitation", "Créer une invitation";
    reset_link: "Make a link to reset the password", "Créer un lien de réinitialisation";
    link_shown_once: "Give this link to the user and nobody else. It is shown once.", "Donnez ce lien à l’utilisateur et à personne d’autre. Il n’est montré qu’une fois.";
    expiry_title: "End of the account", "Fin du compte";
    password_title: "Password", "Mot de passe";
    forget_user: "Forget who this is", "Oublier cette personne";
    forget_help: "The account is gone for good; its name and the recipients of its orders are forgotten everywhere. What was made stays countable.", "Le compte disparaît pour toujours ; son nom et les destinataires de ses commandes sont oubliés partout. Ce qui a été fait reste compté.";
    channels_help: "A channel routes orders to those who work, and is the sender on cards and papers", "Un canal mène les commandes à qui les traite, et nomme l’expéditeur des cartes et papiers";
    new_channel: "New channel", "Nouveau canal";
    slug: "Short name: a-z, 0-9 and -, for good", "Nom court : a-z, 0-9 et -, définitif";
    takes_orders: "Takes orders", "Accepte des commandes";
    private_help: "Only its own workers serve it", "Seuls ses propres postes le servent";
    sender: "Sender", "Expéditeur";
    sender_name: "Name of the sender", "Nom de l’expéditeur";
    sender_address: "Address of the sender", "Adresse de l’expéditeur";
    sender_email: "E-mail of the sender", "E-mail de l’expéditeur";
    delete_channel: "Remove the channel", "Supprimer le canal";
    warehouses: "Warehouses", "Entrepôts";
    warehouses_help: "Where images are kept. A warehouse is known by the key that it showed first.", "Où les images sont gardées. Un entrepôt est reconnu à la clé montrée en premier.";
    warehouse: "Warehouse", "Entrepôt";
    add_warehouse: "Add a warehouse", "Ajouter un entrepôt";
    pinned_keys: "Known keys", "Clés connues";
    not_reached: "Not reached yet", "Pas encore joint";
    by_settings: "From the settings", "Des réglages";
    auto_images: "Auto-images", "Images automatiques";
    auto_images_help: "Images that are made anew on a schedule and served by a name that stays", "Images refaites régulièrement et servies sous un nom fixe";
    new_auto_image: "New auto-image", "Nouvelle image automatique";
    every_days: "Days from one build to the next", "Jours d’une création à la suivante";
    is_public: "Anybody may download it", "Téléchargeable par tous";
    served_since: "Served since", "Servie depuis";
    next_build: "Next build", "Prochaine création";
    last_failure: "Last failure", "Dernier échec";
    build_now: "Build now", "Créer maintenant";
    delete_auto_image: "Serve it no more", "Ne plus la servir";
    download: "Download", "Télécharger";
    api_keys: "API keys", "Clés d’API";
    api_keys_help: "What programs log in with, at the API and at the broker. For walls: see Screens.", "Ce avec quoi les programmes se connectent, à l’API et au courtier. Pour les murs : voir Écrans.";
    new_api_key: "New API key", "Nouvelle clé d’API";
    rights: "May", "Droits";
    right_watch: "watch", "regarder";
    right_order: "order", "commander";
    right_ship: "ship", "expédier";
    days_valid: "Days it is good for", "Jours de validité";
    key_shown_once: "Copy this key now: it is shown once. The user name at the broker is the key’s name.", "Copiez cette clé maintenant : elle n’est montrée qu’une fois. Au courtier, l’utilisateur est le nom de la clé.";
    hooks: "Account hooks", "Crochets de comptes";
    hooks_help: "How a web shop gives people an account for what they bought", "Comment une boutique en ligne donne un compte à ses clients";
    new_hook: "New account hook", "Nouveau crochet";
    hook_shown_once: "The web shop signs with this secret. It is shown once.", "La boutique signe avec ce secret. Il n’est montré qu’une fois.";
    join_tokens: "Join tokens", "Jetons d’adhésion";
    join_tokens_help: "With a token one appliance may ask to join, within 24 hours; a person still compares its code", "Avec un jeton, une machine peut demander à adhérer, dans les 24 heures ; une personne compare encore son code";
    new_join_token: "New join token", "Nouveau jeton";
    token_shown_once: "The token of the next appliance. It is shown once.", "Le jeton de la prochaine machine. Il n’est montré qu’une fois.";
    join_file_at: "JOIN.TXT for a stick: on the page of the appliances", "JOIN.TXT pour une clé : à la page des machines";
    site: "Maintenance and keys", "Maintenance et clés";
    maintenance: "Maintenance", "Maintenance";
    maintenance_help: "While it is on nobody but staff places orders and no new work begins; what runs goes on to its end", "Tant qu’elle dure, seule l’équipe passe commande et rien ne commence ; ce qui tourne va à son terme";
    maintenance_on: "Maintenance is on since", "Maintenance en cours depuis";
    maintenance_off: "Maintenance is off.", "Pas de maintenance.";
    begin_maintenance: "Begin maintenance", "Commencer la maintenance";
    end_maintenance: "End maintenance", "Terminer la maintenance";
    rotate_title: "Keys that sign tokens", "Clés qui signent les jetons";
    rotate_help: "A new key signs from now on; what older keys signed counts until its own end", "Une nouvelle clé signe désormais ; ce que les anciennes ont signé vaut jusqu’à sa fin";
    rotate: "Make a new key", "Nouvelle clé";
    rotate_revoke: "The old keys may be in wrong hands: nothing that they signed counts any more. Everybody logs in again, and all API keys end.", "Les anciennes clés sont peut-être compromises : plus rien de ce qu’elles ont signé ne vaut. Tous se reconnectent, et toutes les clés d’API finissent.";
    rotated: "A new key signs.", "Une nouvelle clé signe.";
    jobs: "Jobs", "Travaux de fond";
    jobs_help: "What runs by itself, backups too", "Ce qui tourne tout seul, sauvegardes comprises";
    purpose: "What it does", "Ce qu’il fait";
    every: "Every", "Toutes les";
    last_run: "Last run", "Dernière exécution";
    failures: "Failures", "Échecs";
    run_now: "Run now", "Exécuter";
    workers: "Workers and load", "Postes et charge";
    workers_help: "Who works here, who calls for help, and what there is to do", "Qui travaille, qui appelle à l’aide, et ce qu’il y a à faire";
    worker: "Worker", "Poste";
    seen: "Heard last", "Vu";
    works_at: "Works at", "Travaille à";
    sos: "Calls for help", "Appelle à l’aide";
    there: "There", "Présent";
    away: "Away", "Absent";
    kind_creator: "Creator", "Créateur";
    kind_appliance: "Appliance", "Machine";
    load_waiting: "Orders that wait for a creator", "Commandes en attente d’un créateur";
    load_building: "Images that are being made", "Images en cours";
    load_creators: "Creators that are there", "Créateurs présents";
    load_cards: "Cards that are wanted", "Cartes demandées";
    load_appliances: "Appliances that are there, and their slots", "Machines présentes, et leurs logements";
    load_image: "Half of the images took less than, nine of ten less than", "La moitié des images ont pris moins de, neuf sur dix moins de";
    load_card: "Half of the cards took less than, nine of ten less than", "La moitié des cartes ont pris moins de, neuf sur dix moins de";
    all_orders: "All orders", "Toutes les commandes";
    all_orders_help: "Orders of all organizations, with acts for several at once", "Les commandes de toutes les organisations, avec des actions groupées";
    cancel: "Cancel", "Annuler";
    retry: "Try again", "Réessayer";
    tasks: "Tasks and logs", "Tâches et journaux";
    tasks_help: "What creators and appliances do or did, and what they wrote about it", "Ce que font ou ont fait créateurs et machines, et ce qu’ils en ont écrit";
    task: "Task", "Tâche";
    kind: "Kind", "Genre";
    kind_creation: "Image", "Image";
    kind_write: "Card", "Carte";
    attempts: "Tries", "Essais";
    logs: "Logs", "Journaux";
    no_logs: "This task has no log.", "Cette tâche n’a pas de journal.";
    log_download: "Downloads", "Téléchargements";
    log_build: "Build", "Création";
    log_index: "Index", "Index";
    log_upload: "Upload", "Envoi";
    log_write: "Writing", "Écriture";
    log_verify: "Read-back", "Relecture";
    as_text: "As plain text", "En texte brut";
    log_live: "It grows while the task runs.", "Il grandit tant que la tâche tourne.";
    task_pending: "Waits", "En attente";
    task_leased: "Taken", "Prise";
    task_running: "Running", "En cours";
    task_succeeded: "Done", "Terminée";
    task_failed: "Failed", "Échouée";
    task_canceled: "Canceled", "Annulée";
    task_expired: "Over", "Périmée";
    changed: "Changed", "Modifié";
    audit: "Audit log", "Journal d’audit";
    audit_help: "Who changed what, from where", "Qui a changé quoi, et d’où";
    export_csv: "Export as CSV", "Exporter en CSV";
    export_json: "Export as JSON", "Exporter en JSON";
    shop_statistics: "Accounts and demand", "Comptes et demande";
    shop_statistics_help: "Accounts, orders, how long things take, how large they are, and what is wanted most", "Comptes, commandes, durées, tailles, et ce qui est le plus demandé";
    by_role: "Accounts by role", "Comptes par rôle";
    count: "Count", "Nombre";
    may_log_in: "May log in", "Peuvent se connecter";
    by_month: "Orders by month", "Commandes par mois";
    month: "Month", "Mois";
    by_organization: "Orders by organization", "Commandes par organisation";
    by_channel: "Orders by channel", "Commandes par canal";
    durations: "How long things take", "Durées";
    from_order_to_image: "From order to image", "De la commande à l’image";
    from_image_to_cards: "From image to last card", "De l’image à la dernière carte";
    from_cards_to_parcel: "From last card to parcel", "De la dernière carte au colis";
    half: "Half within", "La moitié en";
    nine_of_ten: "Nine of ten within", "Neuf sur dix en";
    image_sizes: "Images by size", "Images par taille";
    size: "Size", "Taille";
    popular_configurations: "Configurations by orders", "Configurations par commandes";
    popular_content: "Content by orders", "Contenus par commandes";
    configuration: "Configuration", "Configuration";
    content: "Content", "Contenu";
    orders: "Orders", "Commandes";
    cards: "Cards", "Cartes";
    total_volume: "Images made, together", "Images créées, au total";
    first_title: "Set up the shop", "Installer l’atelier";
    first_help: "Five steps, five minutes; each can be skipped and done later in the back office", "Cinq étapes, cinq minutes ; chacune peut être sautée et faite plus tard dans la gestion";
    first_step: "Step {step} of {count}", "Étape {step} sur {count}";
    skip: "Skip this step", "Passer cette étape";
    skip_all: "Skip all, to the bench", "Tout passer, à l’établi";
    first_password: "Choose your password", "Choisissez votre mot de passe";
    first_password_help: "The one that was printed at the first start is known to whoever saw it", "Celui affiché au premier démarrage est connu de qui l’a vu";
    first_organization: "Who orders?", "Qui commande ?";
    first_channel: "Who sends the cards?", "Qui envoie les cartes ?";
    first_channel_help: "This stands on cards and papers as the sender", "C’est l’expéditeur sur les cartes et papiers";
    first_mail: "Mail", "Courrier";
    first_mail_help: "Letters to people need a mail server, which the scheduler is started with: --smtp or --mail-api, and --mail-sender (cardshop up --help). Without one, links are shown on these pages to be passed on by hand.", "Pour écrire aux personnes il faut un serveur de courrier, donné au démarrage de l’ordonnanceur : --smtp ou --mail-api, et --mail-sender (cardshop up --help). Sans lui, les liens s’affichent sur ces pages pour être transmis à la main.";
    first_join: "The first appliance", "La première machine";
    first_join_help: "Put this file on the CARDSHOP part of a flashed stick, boot a PC from it, and approve it when it shows its code", "Mettez ce fichier sur la partie CARDSHOP d’une clé flashée, démarrez un PC avec, et approuvez-le quand il montre son code";
    first_done: "The shop is ready", "L’atelier est prêt";
    to_bench: "To the bench", "À l’établi";
    next: "Next", "Suivant";
    left_password: "Change the password that was printed at the first start", "Changer le mot de passe affiché au premier démarrage";
    left_organization: "Make the first organization", "Créer la première organisation";
    left_channel: "Say who sends the cards", "Dire qui envoie les cartes";
    left_join: "Let the first appliance join", "Faire adhérer la première machine";
    left_configuration: "Write the first configuration", "Écrire la première configuration";
    left_order: "Place the first order", "Passer la première commande";
    account_help: "What is yours alone", "Ce qui n’est qu’à vous";
    old_password: "Password now", "Mot de passe actuel";
    change_password: "Change the password", "Changer le mot de passe";
    change_password_help: "All your other logins end", "Toutes vos autres connexions prennent fin";
    sessions: "Where you are logged in", "Où vous êtes connecté";
    browser: "Browser", "Navigateur";
    since: "Since", "Depuis";
    confirm_password: "Your password", "Votre mot de passe";
    end_sessions: "Log out everywhere", "Se déconnecter partout";
    end_sessions_help: "Ends all your logins, on pages and of programs, this one too", "Met fin à toutes vos connexions, pages et programmes, celle-ci aussi";
    delete_account: "Delete my account", "Supprimer mon compte";
    delete_account_help: "For good. Your name is forgotten everywhere; orders that have ended stay countable, without their recipients.", "Pour toujours. Votre nom est oublié partout ; les commandes terminées restent comptées, sans leurs destinataires.";
    wrong_password: "the password is not right", "le mot de passe n’est pas le bon";
    your_role: "Your role", "Votre rôle";
    preferences_at: "Language and time zone", "Langue et fuseau horaire";
    link_password_title: "Choose a password", "Choisissez un mot de passe";
    link_password_help: "The link of your letter has filled in the first field. At least 8 characters.", "Le lien de votre lettre a rempli le premier champ. Au moins 8 caractères.";
    link_token: "Code of the letter: what stands behind # in the link", "Code de la lettre : ce qui suit # dans le lien";
    link_bad: "This link does not count any more: it was used, or is too old. Ask for another.", "Ce lien ne vaut plus : il a servi, ou est trop vieux. Demandez-en un autre.";
    password_is_set: "The password is set: log in with it.", "Le mot de passe est choisi : connectez-vous.";
    health_title: "How the shop is", "État de l’atelier";
    health_good: "Everything works.", "Tout fonctionne.";
    health_bad: "Something is away.", "Quelque chose manque.";
    part: "Part", "Partie";
    good: "Works", "Fonctionne";
    resting: "Away, and not needed now", "Absent, et pas nécessaire";
    failed: "Away", "En panne";
    part_store: "Store", "Base de données";
    part_broker: "Broker", "Courtier MQTT";
    part_background: "Jobs", "Travaux de fond";
    part_creators: "Creators", "Créateurs";
    part_queue: "Orders that wait, of those that may", "Commandes en attente, sur le nombre permis";
    part_auto_images: "Downloads of public auto-images", "Téléchargements des images automatiques";
    api_title: "API", "API";
    api_help: "For programs. Each call takes an access token or an API key as Authorization: Bearer, except those that are open.", "Pour les programmes. Chaque appel porte un jeton d’accès ou une clé d’API en Authorization: Bearer, sauf ceux qui sont ouverts.";
    api_document: "The same as an OpenAPI document", "Le même en document OpenAPI";
    api_body: "JSON", "JSON";
    method: "Method", "Méthode";
    path: "Path", "Chemin";
    needs_token: "Token", "Jeton";
    parameters: "Parameters", "Paramètres";
    messages: "Messages", "Messages";
    messages_help: "What was sent to whom, and why something was not", "Ce qui a été envoyé à qui, et pourquoi quelque chose ne l’a pas été";
    event: "Event", "Événement";
    to_whom: "To whom", "À qui";
    as_who: "As", "Comme";
    sent: "Sent", "Envoyé";
    answer: "Answer", "Réponse";
    send_again: "Send once more", "Envoyer à nouveau";
    send_test: "Send a test", "Envoyer un essai";
    done_queued: "It goes out with the next ones", "Part avec les prochains";
    next_try: "tried again", "nouvel essai";
    message_waiting: "Waiting", "En attente";
    message_retrying: "Not taken, tried again", "Refusé, sera réessayé";
    message_held: "Held: no mail server", "Retenu : pas de serveur de courrier";
    message_sent: "Sent", "Envoyé";
    message_failed: "Given up", "Abandonné";
    message_dropped: "Came to nothing", "Sans objet";
    part_recipient: "Recipient", "Destinataire";
    part_client: "Who ordered", "Qui a commandé";
    part_user: "Whose account it is", "À qui est le compte";
    part_failed_orders: "Address for failed orders", "Adresse des commandes échouées";
    part_support: "Support, in copy", "Assistance, en copie";
    notice_order_created: "Order placed", "Commande passée";
    notice_order_failed: "Order failed", "Commande échouée";
    notice_order_canceled: "Order canceled", "Commande annulée";
    notice_image_ready: "Image ready", "Image prête";
    notice_download_ready: "Download ready", "Téléchargement prêt";
    notice_cards_wanted: "Cards wanted at the bench", "Cartes demandées à l’établi";
    notice_writing_begun: "Writing has begun", "Écriture commencée";
    notice_card_written: "Card written", "Carte écrite";
    notice_cards_written: "All cards written", "Toutes les cartes écrites";
    notice_order_shipped: "Order shipped", "Commande expédiée";
    notice_appliance_trouble: "Trouble at an appliance", "Problème sur une machine";
    notice_password_reset: "New password", "Nouveau mot de passe";
    notice_account_invitation: "Invitation", "Invitation";
    notice_test: "Test", "Essai";
    webhooks: "Webhooks", "Webhooks";
    webhooks_help: "Programs and topics that are told what happens", "Programmes et sujets qui apprennent ce qui se passe";
    new_webhook: "New webhook", "Nouveau webhook";
    webhook_address: "An address on the internet; of ntfy: https://SERVER/TOPIC", "Une adresse sur internet ; pour ntfy : https://SERVEUR/SUJET";
    webhook_shown_once: "With this secret the receiver checks what it is sent. It is shown once:", "Avec ce secret le destinataire vérifie ce qu’il reçoit. Il n’est montré qu’une fois :";
    hook_signed: "Signed JSON", "JSON signé";
    hook_ntfy: "Topic of ntfy", "Sujet ntfy";
    told_of: "Is told of", "Apprend";
    deliveries: "What it was told", "Ce qu’il a appris";
    templates: "Letters", "Lettres";
    templates_help: "What letters say, by event and language", "Ce que disent les lettres, par événement et par langue";
    subject: "Subject", "Sujet";
    letter_text: "Text", "Texte";
    letter_text_help: "Blank lines make paragraphs, “- ” a list, an address alone in its paragraph a button. The HTML part is made of the same text.", "Une ligne vide fait un paragraphe, « - » une liste, une adresse seule dans son paragraphe un bouton. La partie HTML est faite du même texte.";
    may_use: "May use", "Peut utiliser";
    preview: "Preview", "Aperçu";
    preview_text: "As text", "En texte";
    preview_html: "As HTML, its source", "En HTML, son code";
    test_letter: "Do letters arrive?", "Les lettres arrivent-elles ?";
    test_to: "To; empty for you", "À ; vide pour vous";
    reset_template: "Back to the built-in text", "Revenir au texte d’origine";
    letters_title: "What you are told of", "Ce dont vous êtes averti";
    letters_help: "By mail, where it concerns you. Letters about your password always come.", "Par courrier, quand cela vous concerne. Les lettres sur votre mot de passe viennent toujours.";
    letters_zone: "Time zone of dates in letters", "Fuseau horaire des dates dans les lettres";
    language_of_organization: "As your organization", "Comme votre organisation";
    forgot_title: "Forgot your password?", "Mot de passe oublié ?";
    forgot_help: "A letter with a link for a new password goes to the address of the account.", "Une lettre avec un lien pour un nouveau mot de passe part à l’adresse du compte.";
    forgot_name: "User name or mail address", "Nom d’utilisateur ou adresse";
    forgot_ask: "Send the letter", "Envoyer la lettre";
    forgot_asked: "If there is such an account with a mail address, a letter is on its way to it. Its link is good for a day.", "Si ce compte existe avec une adresse, une lettre est en route. Son lien vaut un jour.";
    foreign_form: "This form was not sent from this site. Open the page again and repeat it.", "Ce formulaire ne vient pas de ce site. Rouvrez la page et recommencez.";
}

impl Back {
    /// What a form of the back office did, by the key in a redirect.
    pub(crate) fn done(&self, key: &str) -> Option<&'static str> {
        Some(match key {
            "ended" => self.done_ended,
            "all" => self.done_all,
            "units" => self.done_units,
            "ran" => self.done_running,
            "rotated" => self.rotated,
            "queued" => self.done_queued,
            _ => return None,
        })
    }

    /// Where somebody is on the way through the first steps.
    pub(crate) fn first_step(&self, step: usize, count: usize) -> String {
        super::fill(self.first_step, &[("step", &step), ("count", &count)])
    }
}
