"""What two wordings of one question must share to the letter, because embeddings hardly tell it apart.

Cosine similarity is high for "turn the heating on" and "turn the heating off", for 15 and 50, for Rome and Milan. The
marks of a text are what such pairs differ in, in the order of the text. Two texts whose marks differ are never taken
for the same question, however similar they are; one whose marks are read too strictly only misses a stored answer.
English and German words are known. Other languages have the marks that need no words: numerals, quotations, and names
where capitals make them.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

VERSION = 1
"""Of what the marks are; a certificate of another version is not valid."""
_QUOTED = re.compile(
    r'"([^"]+)"|“([^“”]+)[“”]|„([^„“”]+)[“”]|«([^«»]+)»|»([^«»]+)«|`([^`]+)`|(?<!\w)\'([^\']+)\'(?!\w)'
)
_AROUND = ".,:;!?…()[]{}\"“”„«»`'¿¡"
_ENDS = (".", "!", "?", ":", ";", "…")
_POSSESSIVE = "'s"


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in text.split())


_NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve hundred thousand million billion half quarter "
    "third double twice triple once dozen both null zwei drei vier fünf sechs sieben acht neun zehn elf zwölf hundert "
    "tausend million millionen milliarde milliarden halb halbe halben viertel drittel doppelt dreifach einmal zweimal "
    "dreimal beide dutzend percent prozent"
)
_NEGATIONS = _words(
    "no not never without none nobody nothing neither nor nowhere cannot except unless non nicht kein keine keinen "
    "keinem keiner keines nie niemals ohne weder niemand nichts nirgends außer"
)
_OPPOSITES = _words(
    "on off up down out into left right before after above below under over more less fewer most least many few "
    "increase decrease increasing decreasing raise lower higher larger smaller bigger longer shorter faster slower "
    "cheaper cheapest largest smallest biggest highest lowest longest shortest oldest newest youngest fastest slowest "
    "maximum minimum max min best worst first last next previous earlier later earliest latest open close opening "
    "closing start stop begin end enable disable lock unlock import export upload download buy sell send receive "
    "accept decline show hide add remove from against always sometimes only every today tomorrow yesterday north "
    "south east west hot cold warm may must pros cons old new an aus auf ab hoch runter hinauf hinunter herauf "
    "herunter links rechts vor nach über unter oben unten mehr weniger meisten wenigsten viele wenige erhöhen senken "
    "verringern größer kleiner länger kürzer schneller langsamer billiger teurer größte größten kleinste kleinsten "
    "höchste höchsten niedrigste niedrigsten längste längsten kürzeste kürzesten älteste ältesten neueste neuesten "
    "höchstens mindestens besten schlechtesten erste ersten letzte letzten nächste nächsten vorige vorigen früher "
    "später öffnen schließen starten stoppen beginnen beenden aktivieren deaktivieren sperren entsperren importieren "
    "exportieren hochladen herunterladen kaufen verkaufen senden empfangen annehmen ablehnen einblenden ausblenden "
    "hinzufügen entfernen einschalten ausschalten anschalten abschalten nach gegen immer manchmal nur jede jeder "
    "jedes heute morgen gestern nördlich südlich östlich westlich heiß kalt warm muss darf alte neue alten neuen"
)
_UNITS = _words(
    "mm cm m km inch inches foot feet yard yards mile miles g kg mg gram grams kilogram kilograms ounce ounces oz "
    "pound pounds lb lbs ton tons ml l liter liters litre litres gallon gallons pint pints cup cups celsius "
    "fahrenheit kelvin second seconds minute minutes hour hours day days week weeks month months year years kb mb gb "
    "tb euro euros dollar dollars cent cents watt watts volt volts meter meters metre metres kilometer kilometers "
    "kilometre kilometres centimeter centimeters zoll fuß meile meilen gramm kilogramm kilo unze unzen pfund tonne "
    "tonnen millimeter zentimeter sekunde sekunden minuten stunde stunden tag tage tagen woche wochen monat monate "
    "monaten jahr jahre jahren gallone gallonen tasse tassen daily weekly monthly yearly täglich wöchentlich "
    "monatlich jährlich"
)
_OPENERS = _words(
    "i i'm i'd i've i'll a an the what what's when where where's which who who's whose why how how's is are was were "
    "do does did can could will would shall should may might must has have had please tell explain describe give show "
    "list name hello hi hey thanks thank also and or but so if my we our you your there this that these those let "
    "help need want looking quick question in on at to for from of about with it would was wann wo wer wen wem wessen "
    "warum wieso weshalb wie welche welcher welches welchen woher wohin ist sind war waren kann kannst können könnte "
    "könntest könnten darf dürfen soll muss müssen hat haben habe ich wir du sie es er der die das den dem ein eine "
    "einen einem bitte sag sage erkläre erklär erklären beschreibe nenne zeig zeige hallo hi danke guten und oder "
    "aber wenn mein meine wer gibt gib hilf ich würde möchte auf in im am bei mit zum zur von"
)
"""Words that begin a sentence with a capital, and are no names."""


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of a text by kind, each kind in the order of the text and in casefolded form.

    `numerals` has tokens with a digit, number words, units and signs such as + and %; `names` the words with a capital
    letter, except openers at the beginning of a sentence; `opposites` the words that turn a question around.
    """

    numerals: tuple[str, ...]
    quoted: tuple[str, ...]
    negations: tuple[str, ...]
    names: tuple[str, ...]
    opposites: tuple[str, ...]


def marks_of(text: str) -> Marks:
    """Return the marks of a text."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'")
    numerals, negations, names, opposites = list[str](), list[str](), list[str](), list[str]()
    begins = True
    for raw in text.split():
        token = raw.strip(_AROUND).removesuffix(_POSSESSIVE)
        folded = token.casefold()
        is_number = any(map(str.isdigit, token)) or not any(map(str.isalpha, token))
        if (token and is_number) or folded in _NUMBERS or folded in _UNITS:
            numerals.append(folded)
        elif folded in _NEGATIONS or folded.endswith("n't"):
            negations.append(folded)
        elif folded in _OPPOSITES:
            opposites.append(folded)
        elif any(map(str.isupper, token)) and not (begins and folded in _OPENERS) and folded != "i":
            names.append(folded)
        if token:
            begins = raw.endswith(_ENDS)
    quoted = ["".join(parts).casefold() for parts in _QUOTED.findall(text)]  # all but one are empty
    return Marks(
        numerals=tuple(numerals),
        quoted=tuple(quoted),
        negations=tuple(negations),
        names=tuple(names),
        opposites=tuple(opposites),
    )


def scripts_of(text: str) -> frozenset[str]:
    """Return the scripts of a text's letters, such as LATIN or CYRILLIC, by their Unicode names."""
    return frozenset(unicodedata.name(letter, "OTHER").partition(" ")[0] for letter in text if letter.isalpha())
