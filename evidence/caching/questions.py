"""Labelled pairs of questions in English and German, generated with the variety of a grammar.

Each pair has an intent of its own: a family of questions with its slots filled. The pairs of the same question word the
intent in two ways; those of different questions word two intents that differ in one slot: an object, an action, a
place, a number, a name, a negation, a direction, a unit. Half of the texts are in lower case or without punctuation,
as people type.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """Questions of one kind: the ways to word them, and the values of each slot.

    A value is a tuple of synonyms; `{slot}` stands for one of them.
    """

    language: str
    wordings: tuple[str, ...]
    slots: Mapping[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts, whether they ask the same, and what differs if they don't."""

    a: str
    b: str
    same: bool
    language: str
    differs: str = ""


def _values(text: str) -> tuple[tuple[str, ...], ...]:
    """Read values that are separated by commas, and their synonyms by slashes."""
    return tuple(tuple(word.strip() for word in value.split("/")) for value in text.split(","))


_HOW_EN = (
    "How do I {act} {thing} {where}?",
    "How can I {act} {thing} {where}?",
    "What is the way to {act} {thing} {where}?",
    "Please tell me how to {act} {thing} {where}.",
    "I want to {act} {thing} {where}. How does that work?",
    "What do I have to do to {act} {thing} {where}?",
    "How to {act} {thing} {where}?",
)
_HOW_DE = (
    "Wie kann ich {thing} {where} {act}?",
    "Wie lässt sich {thing} {where} {act}?",
    "Was muss ich tun, um {thing} {where} zu {act}?",
    "Ich möchte {thing} {where} {act}. Wie geht das?",
    "Bitte erkläre mir, wie ich {thing} {where} {act} kann.",
    "Auf welche Weise kann ich {thing} {where} {act}?",
)
FAMILIES = (
    Family(
        "en",
        _HOW_EN,
        {
            "act": _values(
                "change/modify, delete/remove, export, print, share, rename, restore/recover, find/locate, archive, "
                "copy/duplicate, encrypt, translate, edit, download, upload, move, check, verify, cancel, renew, "
                "reset, lock, unlock, hide, compare, sort, merge, split, sign, schedule"
            ),
            "thing": _values(
                "my password, my invoice, my order, my photos/my pictures, the contract, the report, my profile, the "
                "calendar, my subscription, my contacts, the spreadsheet, the presentation, my emails/my mails, the "
                "backup, my address, the playlist, my ticket, my reservation/my booking, the certificate, the "
                "database, the folder, my account, the form, the timetable, my username, the list of members, my "
                "phone number, the table of contents, the logo, the newsletter, the voice message, my bank statement, "
                "my tax return, the shopping list, the meeting notes, the map, the survey, the warranty, the recipe, "
                "the manual"
            ),
            "where": _values(
                "in the app, on the website, on my phone, on my laptop, from the command line, in the web browser, on "
                "a tablet, in the office, over the telephone, at the counter, on my watch, by letter, on a shared "
                "computer, in the shop, without an account, in the settings"
            ),
        },
    ),
    Family(
        "de",
        _HOW_DE,
        {
            "act": _values(
                "ändern, löschen, exportieren, drucken/ausdrucken, teilen, umbenennen, wiederherstellen, finden, "
                "archivieren, kopieren, verschlüsseln, übersetzen, bearbeiten, herunterladen, hochladen, verschieben, "
                "prüfen, kündigen, verlängern, zurücksetzen, sperren, entsperren, ausblenden, vergleichen, sortieren, "
                "unterschreiben, planen, bestellen, bezahlen, weiterleiten"
            ),
            "thing": _values(
                "mein Passwort, meine Rechnung, meine Bestellung, meine Fotos, den Vertrag, den Bericht, mein Profil, "
                "den Kalender, mein Abonnement, meine Kontakte, die Tabelle, die Präsentation, meine Mails, die "
                "Sicherung, meine Adresse, die Wiedergabeliste, mein Ticket, meine Reservierung, das Zertifikat, die "
                "Datenbank, den Ordner, mein Konto, das Formular, den Fahrplan, meinen Benutzernamen, die "
                "Mitgliederliste, meine Telefonnummer, das Inhaltsverzeichnis, das Logo, den Rundbrief, die "
                "Sprachnachricht, meinen Kontoauszug, meine Steuererklärung, die Einkaufsliste, das Protokoll, die "
                "Karte, die Umfrage, die Garantie, das Rezept"
            ),
            "where": _values(
                "in der App, auf der Webseite, auf dem Handy, auf dem Laptop, im Browser, im Büro, am Telefon, auf dem "
                "Tablet, am Schalter, auf der Uhr, per Brief, im Laden, in den Einstellungen, ohne Konto"
            ),
        },
    ),
    Family(
        "en",
        (
            "How do I {turn} the {device} in the {room}?",
            "How can I {turn} the {device} in the {room}?",
            "What is the way to {turn} the {device} in the {room}?",
            "Please explain how to {turn} the {device} in the {room}.",
            "What do I press to {turn} the {device} in the {room}?",
        ),
        {
            "turn": _values("turn on, turn off, turn up, turn down, clean, repair/fix, replace, install, insulate"),
            "device": _values(
                "heating, light/lamp, air conditioner, alarm, radio, fan, projector, dishwasher, speaker, thermostat, "
                "smoke detector, window, door, humidifier, camera, router"
            ),
            "room": _values(
                "kitchen, bedroom, bathroom, hallway, office, garage, basement/cellar, attic, nursery, living room"
            ),
        },
    ),
    Family(
        "de",
        (
            "Wie kann ich {device} {room} {turn}?",
            "Wie lässt sich {device} {room} {turn}?",
            "Bitte erkläre mir, wie ich {device} {room} {turn} kann.",
            "Was muss ich drücken, um {device} {room} zu {turn}?",
        ),
        {
            "turn": _values("reinigen/säubern, reparieren, ersetzen/austauschen, öffnen, schließen, prüfen, dämmen"),
            "device": _values(
                "die Heizung, die Lampe, die Klimaanlage, den Alarm, das Radio, den Ventilator, den Beamer, die "
                "Spülmaschine, den Lautsprecher, den Rauchmelder, das Fenster, die Tür, die Kamera, den Router"
            ),
            "room": _values(
                "in der Küche, im Schlafzimmer, im Bad, im Flur, im Büro, in der Garage, im Keller, auf dem Dachboden"
            ),
        },
    ),
    Family(
        "en",
        (
            "How long does the {ride} take from {a} to {b}?",
            "What is the travel time of the {ride} from {a} to {b}?",
            "Please tell me how long the {ride} takes from {a} to {b}.",
            "How much time does the {ride} take from {a} to {b}?",
        ),
        {
            "ride": _values("train, bus/coach, flight, drive, ferry, bike ride"),
            "a": _values("Berlin, Paris, Rome, Madrid, Vienna, Oslo, Lisbon, Dublin, Prague, Zurich, Milan, Hamburg"),
            "b": _values("Munich, London, Naples, Seville, Graz, Bergen, Porto, Cork, Brno, Geneva, Turin, Bremen"),
        },
    ),
    Family(
        "de",
        (
            "Wie lange dauert {ride} von {a} nach {b}?",
            "Wie lange braucht man für {ride} von {a} nach {b}?",
            "Bitte sag mir, wie lange {ride} von {a} nach {b} dauert.",
        ),
        {
            "ride": _values("die Bahnfahrt/die Zugfahrt, die Busfahrt, der Flug, die Autofahrt, die Radtour"),
            "a": _values("Berlin, Paris, Rom, Madrid, Wien, Oslo, Lissabon, Dublin, Prag, Zürich, Mailand, Hamburg"),
            "b": _values("München, London, Neapel, Sevilla, Graz, Bergen, Porto, Cork, Brünn, Genf, Turin, Bremen"),
        },
    ),
    Family(
        "en",
        (
            "How many {small} are in {n} {big}?",
            "How many {small} does one get from {n} {big}?",
            "Please convert {n} {big} into {small}.",
            "What are {n} {big} in {small}?",
        ),
        {
            "small": _values("grams, ounces, meters, feet, seconds, minutes, milliliters, cents"),
            "n": _values("2, 3, 5, 7, 12, 15, 20, 48, 50, 64, 100, 250"),
            "big": _values("kilograms, pounds, miles, yards, hours, days, gallons, dollars"),
        },
    ),
    Family(
        "en",
        (
            "Which {plants} are {neg}{prop} for {animals}?",
            "What {plants} are {neg}{prop} for {animals}?",
            "Please list the {plants} that are {neg}{prop} for {animals}.",
            "Tell me which {plants} are {neg}{prop} for {animals}.",
        ),
        {
            "plants": _values(
                "plants, berries, mushrooms, vegetables, nuts, seeds, herbs, fruits, oils, cheeses, insects"
            ),
            "neg": _values(", not "),
            "prop": _values("toxic/poisonous, healthy, edible, cheap/inexpensive, seasonal, common, digestible"),
            "animals": _values("cats, dogs, rabbits, horses, parrots, children/kids, hamsters, goats, chickens, pigs"),
        },
    ),
    Family(
        "de",
        (
            "Welche {plants} sind für {animals} {neg}{prop}?",
            "Nenne mir {plants}, die für {animals} {neg}{prop} sind.",
            "Welche {plants} gibt es, die für {animals} {neg}{prop} sind?",
        ),
        {
            "plants": _values("Pflanzen, Beeren, Pilze, Gemüsesorten, Nüsse, Samen, Kräuter, Früchte, Öle, Käsesorten"),
            "neg": _values(", nicht "),
            "prop": _values("giftig, gesund, essbar, teuer, verdaulich, ungeeignet"),
            "animals": _values(
                "Katzen, Hunde, Kaninchen, Pferde, Papageien, Kinder, Hamster, Ziegen, Hühner, Schweine"
            ),
        },
    ),
    Family(
        "en",
        (
            "What is the {rank} {feature} in {country}?",
            "Which is the {rank} {feature} in {country}?",
            "Tell me the {rank} {feature} in {country}.",
            "Please name the {rank} {feature} in {country}.",
            "Do you know the {rank} {feature} in {country}?",
        ),
        {
            "rank": _values(
                "largest/biggest, smallest, oldest, most visited, most expensive, least known, second largest"
            ),
            "feature": _values(
                "city, lake, island, river, mountain, museum, airport, university, castle, forest, bridge, theatre, "
                "harbour, stadium, company, newspaper, library, waterfall, glacier, vineyard"
            ),
            "country": _values(
                "France, Spain, Italy, Norway, Austria, Poland, Greece, Japan, Canada, Brazil, Kenya, Chile, Turkey, "
                "Egypt"
            ),
        },
    ),
    Family(
        "de",
        (
            "Was ist {what} in {country}?",
            "Kennst du {what} in {country}?",
            "Nenne mir {what} in {country}.",
            "Ich möchte wissen, was {what} in {country} ist.",
        ),
        {
            "what": _values(
                "die größte Stadt, die kleinste Stadt, der größte See, der kleinste See, die größte Insel, der "
                "längste Fluss, der höchste Berg, das älteste Museum, der größte Flughafen, die älteste Universität, "
                "die älteste Burg, der größte Wald, die längste Brücke, das größte Stadion, die größte Firma, die "
                "älteste Zeitung"
            ),
            "country": _values(
                "Frankreich, Spanien, Italien, Norwegen, Österreich, Polen, Griechenland, Japan, Kanada, Brasilien, "
                "Kenia"
            ),
        },
    ),
)


def pairs(count: int, seed: int) -> list[Pair]:
    """Return so many pairs, half of them of the same question. No intent occurs in two pairs."""
    rng = random.Random(seed)
    by_language = {language: [f for f in FAMILIES if f.language == language] for language in ("en", "de")}
    used: set[tuple[int, tuple[int, ...]]] = set()
    generated: list[Pair] = []
    for same, language in itertools.cycle(itertools.product((True, False), by_language)):
        if len(generated) == count:
            return generated
        generated.append(_pair(rng, by_language[language], used, same=same))
    raise AssertionError("a cycle has no end")


def _pair(
    rng: random.Random, families: Sequence[Family], used: set[tuple[int, tuple[int, ...]]], *, same: bool
) -> Pair:
    while True:
        (family,) = rng.choices(families, [_size(family) for family in families])
        intent = {slot: rng.randrange(len(values)) for slot, values in family.slots.items()}
        slot = "" if same else rng.choice(list(family.slots))
        other = dict(intent)
        if slot:
            other[slot] = rng.choice([n for n in range(len(family.slots[slot])) if n != intent[slot]])
        marks = {(id(family), tuple(intent.values())), (id(family), tuple(other.values()))}
        if marks & used:
            continue
        used |= marks
        a, b = rng.sample(family.wordings, 2)
        if slot and rng.random() < 0.5:
            b = a  # nothing but the slot differs
        texts = (_worded(rng, family, a, intent), _worded(rng, family, b, other))
        if texts[0] != texts[1]:
            return Pair(*texts, same, family.language, slot)


def _size(family: Family) -> float:
    """The square root of the number of intents, so that small families have their share and are not used up."""
    size = 1
    for values in family.slots.values():
        size *= len(values)
    return float(size**0.5)


def _worded(rng: random.Random, family: Family, wording: str, intent: Mapping[str, int]) -> str:
    chosen = {slot: rng.choice(family.slots[slot][n]) for slot, n in intent.items()}
    chosen = {slot: word + " " if slot == "neg" and word else word for slot, word in chosen.items()}
    text = wording.format(**chosen)
    typed = rng.random()
    if typed < 0.25:
        return text.lower()
    return text.rstrip("?.") if typed < 0.5 else text


def texts_of(all_pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield the texts of pairs, each once."""
    yield from dict.fromkeys(text for pair in all_pairs for text in (pair.a, pair.b))
