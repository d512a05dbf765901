//! English.

use super::{Text, Texts};

pub(super) static TEXTS: Texts = Texts {
    language: "en",
    moment: "%-d %B %Y, %H:%M (%Z)",
    decimal: ".",
    units: ("MB", "GB"),
    hidden_link: "(the link is only in the letter to this person)",
    footer: "{{ shop }}{% if support %}\nQuestions? Write to {{ support }}.{% endif %}\n\nThis letter was written by a program.",
    order_created: Text {
        subject: "Order received: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

{% if kind == 'virtual' %}an order for a download of {{ name }} has been placed. You get another letter with the link as soon as \
it is ready.{% else %}an order for {{ quantity }} {% if quantity == 1 %}card{% else %}cards{% endif %} with {{ name }}\
{% if media %} ({{ media }}){% endif %} has been placed{% if recipient %} for {{ recipient }}{% endif %}. You get another letter \
when the parcel leaves.{% endif %}

Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    order_failed: Text {
        subject: "Order failed: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

we could not make what was ordered, {{ name }}. It has cost nothing. Our staff knows; there is nothing that you have to do.
{% if reason %}
Reason: {{ reason }}
{% endif %}
Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    order_canceled: Text {
        subject: "Order canceled: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

the order of {{ name }} was canceled on {{ when }}. Nothing more is made or sent, and links to it have ended.

Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    image_ready: Text {
        subject: "Image ready: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

the image of {{ name }} is made ({{ size }}). {% if quantity == 1 %}The card is written next.{% else %}The {{ quantity }} cards are \
written next.{% endif %}

Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    download_ready: Text {
        subject: "Your download is ready: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

{{ name }} is ready for download ({{ size }}), until {{ until }}:
{% for link in links %}
{{ link }}
{% endfor %}
How to put it on a card of at least that size:

- Download the file. A download that breaks off can be continued, by the browser or by curl -C - -O followed by the link.
- Put the card into your computer. Everything on it will be erased.
- Write the file to the card with balenaEtcher, Raspberry Pi Imager (choose \"Use custom\"), or cardshop write, which checks the card too.
- Wait until the program says that the card is verified, then take it out.

Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    cards_wanted: Text {
        subject: "Cards wanted: {{ count }} for {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

{{ count }} {% if count == 1 %}card{% else %}cards{% endif %} of {{ name }} can be written now, and no slot has one for it. Please put \
{% if media %}{{ media }} cards{% else %}cards of at least {{ size }}{% endif %} into any free slots.

{{ bench }}",
    },
    writing_begun: Text {
        subject: "Writing has begun: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

the first of {{ quantity }} {% if quantity == 1 %}card{% else %}cards{% endif %} of {{ name }} is being written.

{{ bench }}",
    },
    card_written: Text {
        subject: "Card {{ count }} of {{ quantity }} is written: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

a card of {{ name }} is written and verified: {{ count }} of {{ quantity }}. Its slot is free as soon as you take it out.

{{ bench }}",
    },
    cards_written: Text {
        subject: "To be shipped: {{ quantity }} × {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

all {{ quantity }} {% if quantity == 1 %}card{% else %}cards{% endif %} of {{ name }} are written and verified. Please ship them\
{% if address %} to:

{% for line in address %}{{ line }}
{% endfor %}{% else %}; the order names no address.
{% endif %}
Then say so, with the tracking code, at the order {{ order }}:

{{ page }}",
    },
    order_shipped: Text {
        subject: "Shipped: {{ name }}",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

{% if count == 1 %}a card{% else %}{{ count }} cards{% endif %} of {{ name }} left on {{ when }}{% if recipient %} for {{ recipient }}\
{% endif %}.{% if left %} {{ left }} more will follow.{% endif %}
{% if tracking %}
Tracking code: {{ tracking }}
{% endif %}
Number of the order: {{ order }}{% if page %}

{{ page }}{% endif %}",
    },
    appliance_trouble: Text {
        subject: "Appliance {{ label }} needs a look",
        body: "Hello{% if greeted %} {{ greeted }}{% endif %},

the appliance {{ label }} needs a look:

{% for line in lines %}- {{ line.text }}{% if line.count > 1 %} ({{ line.count }} times){% endif %}, since {{ line.since }}
{% endfor %}
The next letter about it comes in an hour at the earliest.

{{ bench }}",
    },
    password_reset: Text {
        subject: "A new password for {{ username }}",
        body: "Hello {{ username }},

somebody, probably you, asked for a new password of your account. You set it here, until {{ until }}:

{{ link }}

If it was not you, do nothing: your password stays as it is.",
    },
    account_invitation: Text {
        subject: "Your account: {{ username }}",
        body: "Hello,

there is an account for you, with the user name {{ username }}. You set its password here, until {{ until }}:

{{ link }}

After that you log in with it at {{ site }}.",
    },
    test: Text {
        subject: "Test of mail",
        body: "Hello,

this letter shows that mail of {{ site }} arrives. It was sent on {{ when }}.",
    },
};
