//! French.

use super::{Text, Texts};

pub(super) static TEXTS: Texts = Texts {
    language: "fr",
    moment: "%d/%m/%Y à %H:%M (%Z)",
    decimal: ",",
    units: ("Mo", "Go"),
    hidden_link: "(le lien ne figure que dans le message à cette personne)",
    footer: "{{ shop }}{% if support %}\nDes questions ? Écrivez à {{ support }}.{% endif %}\n\nCe message a été écrit par un programme.",
    order_created: Text {
        subject: "Commande reçue : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

{% if kind == 'virtual' %}un téléchargement de {{ name }} a été commandé. Un autre message vous donnera le lien dès qu’il sera \
prêt.{% else %}une commande de {{ quantity }} {% if quantity == 1 %}carte{% else %}cartes{% endif %} {{ name }}\
{% if media %} ({{ media }}){% endif %} a été passée{% if recipient %} pour {{ recipient }}{% endif %}. Un autre message vous \
préviendra du départ du colis.{% endif %}

Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    order_failed: Text {
        subject: "Échec de la commande : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

nous n’avons pas pu réaliser ce qui a été commandé, {{ name }}. Rien n’est décompté. Notre équipe est prévenue ; vous n’avez rien à faire.
{% if reason %}
Raison : {{ reason }}
{% endif %}
Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    order_canceled: Text {
        subject: "Commande annulée : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

la commande de {{ name }} a été annulée le {{ when }}. Rien de plus ne sera réalisé ni envoyé, et ses liens ne sont plus valables.

Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    image_ready: Text {
        subject: "Image prête : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

l’image de {{ name }} est prête ({{ size }}). {% if quantity == 1 %}La carte va être écrite.{% else %}Les {{ quantity }} cartes vont \
être écrites.{% endif %}

Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    download_ready: Text {
        subject: "Votre téléchargement est prêt : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

{{ name }} est prêt au téléchargement ({{ size }}), jusqu’au {{ until }} :
{% for link in links %}
{{ link }}
{% endfor %}
Pour l’écrire sur une carte d’au moins cette taille :

- Téléchargez le fichier. Un téléchargement interrompu peut être repris, par le navigateur ou par curl -C - -O suivi du lien.
- Insérez la carte dans votre ordinateur. Tout son contenu sera effacé.
- Écrivez le fichier sur la carte avec balenaEtcher, Raspberry Pi Imager (choisissez « Image personnalisée ») ou cardshop write, qui contrôle aussi la carte.
- Attendez que le programme dise que la carte est vérifiée, puis retirez-la.

Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    cards_wanted: Text {
        subject: "Cartes demandées : {{ count }} pour {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

{{ count }} {% if count == 1 %}carte{% else %}cartes{% endif %} {{ name }} {% if count == 1 %}peut être écrite{% else %}peuvent être \
écrites{% endif %}, et aucun logement n’en contient. Merci d’insérer {% if media %}des cartes {{ media }}{% else %}des cartes d’au moins \
{{ size }}{% endif %} dans les logements libres.

{{ bench }}",
    },
    writing_begun: Text {
        subject: "L’écriture a commencé : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

la première {% if quantity == 1 %}et seule carte{% else %}des {{ quantity }} cartes{% endif %} {{ name }} est en cours d’écriture.

{{ bench }}",
    },
    card_written: Text {
        subject: "Carte {{ count }} sur {{ quantity }} écrite : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

une carte {{ name }} est écrite et vérifiée : {{ count }} sur {{ quantity }}. Son logement est libre dès que vous la retirez.

{{ bench }}",
    },
    cards_written: Text {
        subject: "À expédier : {{ quantity }} × {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

{% if quantity == 1 %}la carte {{ name }} est écrite et vérifiée. Merci de l’expédier{% else %}les {{ quantity }} cartes {{ name }} sont \
écrites et vérifiées. Merci de les expédier{% endif %}{% if address %} à :

{% for line in address %}{{ line }}
{% endfor %}{% else %} ; la commande n’indique pas d’adresse.
{% endif %}
Indiquez-le ensuite, avec le numéro de suivi, à la commande {{ order }} :

{{ page }}",
    },
    order_shipped: Text {
        subject: "Expédiée : {{ name }}",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

{% if count == 1 %}une carte {{ name }} est partie{% else %}{{ count }} cartes {{ name }} sont parties{% endif %} le {{ when }}\
{% if recipient %} pour {{ recipient }}{% endif %}.{% if left %} {{ left }} autres suivront.{% endif %}
{% if tracking %}
Numéro de suivi : {{ tracking }}
{% endif %}
Numéro de la commande : {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    appliance_trouble: Text {
        subject: "La machine {{ label }} demande votre attention",
        body: "Bonjour{% if greeted %} {{ greeted }}{% endif %},

la machine {{ label }} demande votre attention :

{% for line in lines %}- {{ line.text }}{% if line.count > 1 %} ({{ line.count }} fois){% endif %}, depuis le {{ line.since }}
{% endfor %}
Le prochain message à son sujet viendra dans une heure au plus tôt.

{{ bench }}",
    },
    password_reset: Text {
        subject: "Nouveau mot de passe pour {{ username }}",
        body: "Bonjour {{ username }},

quelqu’un, sans doute vous, a demandé un nouveau mot de passe pour votre compte. Choisissez-le ici, jusqu’au {{ until }} :

{{ link }}

Si ce n’était pas vous, ne faites rien : votre mot de passe reste le même.",
    },
    account_invitation: Text {
        subject: "Votre compte : {{ username }}",
        body: "Bonjour,

un compte vous attend, sous le nom {{ username }}. Choisissez son mot de passe ici, jusqu’au {{ until }} :

{{ link }}

Connectez-vous ensuite avec lui sur {{ site }}.",
    },
    test: Text {
        subject: "Essai du courrier",
        body: "Bonjour,

ce message montre que le courrier de {{ site }} arrive. Il a été envoyé le {{ when }}.",
    },
};
