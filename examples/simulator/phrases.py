"""What people write: business items, comments and names, with what makes parsers stumble.

Umlauts, emoji, quotes, markup characters and the log's own separator `|` are all in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

Type = Literal["xs:string", "xs:int", "xs:double", "xs:boolean", "xs:dateTime", "xs:integer"]

SUPPLIERS = (
    "Möbel Grün & Söhne GmbH",
    "Nordlicht Bürobedarf",
    'Druckerei "Blatt|Werk"',
    "Café Olé S.à r.l.",
    "Kabel <Plus> KG",
    "Hansen Logistik",
    "Übersee-Kontor Bremen",
    "Łódź Textil Sp. z o.o.",
    "Fenster O'Hara Ltd.",
    "Papier 2000",
    "東京 Instruments",
    "Zweirad Jäger",
)
_SUPPLIER_SHARE = 1.8  # exponent: the first suppliers send most of the invoices

PRODUCTS = ("Router R4", "Scanner X", "Label printer", "Handheld", "Gateway", "Cash desk")
PRIORITIES = ("low", "normal", "normal", "normal", "high", "urgent")
CHANNELS = ("mail", "mail", "phone", "portal")
SPACES = ("Bremen", "Köln", "Zürich", "Online")

COMMENTS = (
    "ok",
    "looks good to me 👍",
    "please check the amount again",
    "Betrag stimmt nicht, bitte prüfen!",
    "delivery note missing | order number missing",
    'the customer said: "not my device"',
    "price < offer & quantity > order?",
    "wrong cost centre, see row 4|7",
    "Rückfrage beim Lieferanten läuft",
    "second reminder 📮",
    "it's urgent – customer is waiting",
    "geprüft|freigegeben|weitergeleitet",
    "restarted the device, error is gone 🎉",
    "same problem as last week; replaced the cable",
    "bitte bis Freitag erledigen",
    "duplicate of an older one",
)

SUBJECTS = (
    "Gerät startet nicht",
    "No connection since this morning",
    "Label prints twice",
    "Passwort vergessen 🔑",
    "Error E17 after the update",
    "Display bleibt schwarz",
    "Please add a second user",
    "Scanner reads wrong digits & beeps",
)

DESCRIPTIONS = (
    "The device was moved to another room last week and has not worked since then.",
    "Nach dem letzten Update erscheint beim Start die Meldung <Fehler 17>, danach passiert nichts.",
    "We have tried another cable and another socket, and the lamp still blinks red.",
    "The supplier sent the invoice twice, once on paper and once by mail; this is the second one.",
    "Lieferung war unvollständig, zwei Positionen fehlen und eine ist beschädigt.",
    'The order says "carriage paid", the invoice adds 14.90 for shipping & handling.',
    "Goods were received in three parts; the last delivery note is attached.",
    "Der Rabatt aus dem Rahmenvertrag wurde nicht abgezogen.",
)


@dataclass(frozen=True, slots=True)
class Business:
    """The items a case is about.

    Attributes:
        amount: of an invoice, in euros; 0 for tickets.
        subject: what the case is called.
        description: a few sentences.
        space: the branch it belongs to.
        items: (name, type, text) of every other business item.
    """

    amount: float
    subject: str
    description: str
    space: str
    items: tuple[tuple[str, Type, str], ...]


def invoice(random: Random, arrival: int) -> Business:
    """Draw the business items of an invoice that arrives at a time (µs since the epoch)."""
    amount = round(random.lognormvariate(6.2, 1.3), 2)
    supplier = SUPPLIERS[int(len(SUPPLIERS) * random.random() ** _SUPPLIER_SHARE)]
    number = f"RE-{arrival % 10**9 // 1000:06d}"
    return Business(
        amount=amount,
        subject=f"{supplier}: {number}",
        description=_description(random),
        space=random.choice(SPACES),
        items=(
            ("amount", "xs:double", repr(amount)),
            ("costcentre", "xs:int", str(random.randrange(4000, 4080, 10))),
            ("currency", "xs:string", "EUR"),
            ("invoice.number", "xs:string", number),
            ("invoice.positions", "xs:integer", str(random.randrange(1, 30))),
            ("priority", "xs:string", random.choice(PRIORITIES)),
            ("supplier", "xs:string", supplier),
            ("vat", "xs:double", repr(round(amount * 0.19, 2))),
        ),
    )


def ticket(random: Random) -> Business:
    """Draw the business items of a service ticket."""
    return Business(
        amount=0.0,
        subject=random.choice(SUBJECTS),
        description=_description(random),
        space=random.choice(SPACES),
        items=(
            ("channel", "xs:string", random.choice(CHANNELS)),
            ("contract", "xs:boolean", random.choice(("true", "false"))),
            ("customer.number", "xs:int", str(random.randrange(10_000, 10_400))),
            ("device.serial", "xs:string", f"{random.getrandbits(40):010X}"),
            ("priority", "xs:string", random.choice(PRIORITIES)),
            ("product", "xs:string", random.choice(PRODUCTS)),
        ),
    )


def comment(random: Random) -> str:
    """Draw what somebody writes into a log."""
    return random.choice(COMMENTS)


def _description(random: Random) -> str:
    sentences = random.randrange(1, 3)
    return " ".join(random.choice(DESCRIPTIONS) for _ in range(sentences))
