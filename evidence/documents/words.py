"""The words of the corpus: how reports name their values in several languages, and what documents of other kinds say.

A *house* is one vendor's or clinic's way to name the six values of a report, in the order AL, K1, K2, ACD, LT, WTW. The
houses, prefixes, titles and other kinds of HELD_OUT are used by no test that the captions were adjusted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VALUES = ("AL", "K1", "K2", "ACD", "LT", "WTW")
House = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class Language:
    """How a language prints reports. `right` and `left` are pairs of equal forms; `comma`: it prints 23,44."""

    code: str
    houses: tuple[House, ...]
    ids: tuple[str, ...]
    eyes: tuple[str, ...]
    right: tuple[str, ...]
    left: tuple[str, ...]
    others: tuple[str, ...]
    comma: bool = False


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One part of the words. Prefixes are those of patient numbers; `sentences` are prose with places for values."""

    languages: tuple[Language, ...]
    prefixes: tuple[str, ...]
    titles: tuple[str, ...]
    sentences: tuple[str, ...]
    kinds: Mapping[str, tuple[str, ...]]


TUNING = Vocabulary(
    languages=(
        Language(
            code="en",
            houses=(
                ("AL", "K1", "K2", "ACD", "LT", "WTW"),
                ("Axial length", "Flat K", "Steep K", "Anterior chamber depth", "Lens thickness", "White to white"),
                ("Axial Length (AL)", "K1", "K2", "AC depth", "Lens thickness (LT)", "White-to-White"),
            ),
            ids=("Patient ID", "ID", "Patient", "MRN"),
            eyes=("Eye", "Laterality", "Side"),
            right=("OD", "right", "OD (right)", "R"),
            left=("OS", "left", "OS (left)", "L"),
            others=("CCT: {cct} µm", "SNR {snr}", "A const 118.{digit}", "Pupil {pupil} mm", "IOL +{power} D"),
        ),
        Language(
            code="de",
            houses=(
                ("Achslänge", "K1", "K2", "Vorderkammertiefe", "Linsendicke", "Weiß-zu-Weiß"),
                ("AL", "K flach", "K steil", "VKT", "LD", "WZW"),
            ),
            ids=("Patienten-Nr.", "Pat.-Nr.", "Patient"),
            eyes=("Auge", "Seite"),
            right=("rechts", "OD", "RA", "rechtes Auge"),
            left=("links", "OS", "LA", "linkes Auge"),
            others=("Hornhautdicke {cct} µm", "SNR {snr}", "Pupille {pupil} mm"),
            comma=True,
        ),
        Language(
            code="fr",
            houses=(
                ("Longueur axiale", "K1", "K2", "Prof. chambre ant.", "Épaisseur cristallin", "Blanc à blanc"),
                ("Long. axiale", "K plat", "K cambré", "Ch. antérieure", "Ép. cristallin", "Blanc à blanc"),
            ),
            ids=("N° patient", "Patient", "Identifiant"),
            eyes=("Œil", "Côté"),
            right=("droit", "OD", "œil droit"),
            left=("gauche", "OG", "œil gauche"),
            others=("Pachymétrie {cct} µm", "Pupille {pupil} mm"),
            comma=True,
        ),
    ),
    prefixes=("", "P", "A", "K", "AB"),
    titles=("IOLMaster 700", "BIOMETRY REPORT", "Ocular biometry", "LENSTAR LS900"),
    sentences=(
        "Biometry showed an axial length of {AL} mm, K1 of {K1} D and K2 of {K2} D, an anterior "
        "chamber depth of {ACD} mm, "
        "a lens thickness of {LT} mm and a white to white of {WTW} mm.",
    ),
    kinds={
        "invoice": (
            "Invoice {number}\n{count} boxes of gloves, {a}.50 EUR each\nTotal {b}.00 EUR\nPay by 30 June",
            "Rechnung Nr. {number}\nPos. 1  Tupfer  {a},90 EUR\nSumme {b},40 EUR",
        ),
        "laboratory": (
            "Lab report\nPatient ID: {id}\nNa {b} mmol/l\nK {c}.{digit} mmol/l\nCRP {a}.2 mg/l\nHb {d}.1 g/dl",
        ),
        "letter": (
            "Dear colleague,\nthank you for seeing patient {id}. The left eye is red. Review in {count} weeks.",
        ),
    },
)

HELD_OUT = Vocabulary(
    languages=(
        Language(
            code="en",
            houses=(
                ("AL", "K1", "K2", "ACD", "LT", "WTW"),
                ("AxL", "Kf", "Ks", "ACD", "Lens", "W2W"),
                ("Axial length", "K flat", "K steep", "Anterior chamber", "Lens thickness", "Corneal diameter"),
                ("Ax. length", "Flat meridian", "Steep meridian", "Chamber depth", "Lens thick.", "White/white"),
                ("Axial Eye Length", "Sim K1", "Sim K2", "Ant. chamber depth", "Crystalline lens thickness", "HWTW"),
                ("Globe length", "Keratometry 1", "Keratometry 2", "Front chamber", "Lens width", "Limbus to limbus"),
            ),
            ids=("Patient No.", "Pat. ID", "Chart no.", "Case", "Record", "Study ID", "Subject", "#"),
            eyes=("Eye", "Eye examined", "Operated eye", "Measured eye", "Requested"),
            right=("OD", "right eye", "right", "RE", "R", "Right (OD)"),
            left=("OS", "left eye", "left", "LE", "L", "Left (OS)"),
            others=(
                "CCT {cct} µm",
                "Pachymetry: {cct} um",
                "Pupil: {pupil} mm",
                "SNR {snr}",
                "Target refraction -0.{digit}5 D",
                "A-const=118.{digit}",
                "IOL power {power} D",
                "Axis {axis}°",
                "Quality OK",
                "Operator: M. Stone",
                "Kappa 0.{digit}",
                "Temp. 2{digit}.5",
                "Firmware 4.{digit}",
            ),
        ),
        Language(
            code="de",
            houses=(
                ("Achsenlänge", "K1", "K2", "Vorderkammertiefe", "Linsendicke", "Weiß-Weiß"),
                ("Bulbuslänge", "K flach", "K steil", "VK-Tiefe", "Linsendicke", "Hornhautdurchmesser"),
                ("AL", "K1", "K2", "VKT", "LD", "WW-Abstand"),
                (
                    "Augenlänge",
                    "flacher Meridian",
                    "steiler Meridian",
                    "Vorderkammer",
                    "Dicke der Linse",
                    "Weiß-zu-Weiß",
                ),
                ("Länge Auge", "Brechkraft 1", "Brechkraft 2", "Kammertiefe", "Linse dick", "Limbusabstand"),
            ),
            ids=("Patientennummer", "Fallnummer", "Kennung", "Akte", "Pat-ID", "Kartei"),
            eyes=("Auge", "Seite", "gemessenes Auge"),
            right=("rechts", "R", "RA", "rechtes Auge", "OD"),
            left=("links", "L", "LA", "linkes Auge", "OS"),
            others=(
                "Hornhaut {cct} µm",
                "Pupillendurchmesser {pupil} mm",
                "Achse {axis}°",
                "Zielrefraktion -0,{digit}5",
                "Untersucher Kern",
            ),
            comma=True,
        ),
        Language(
            code="fr",
            houses=(
                (
                    "Longueur axiale",
                    "K1",
                    "K2",
                    "Profondeur de chambre antérieure",
                    "Épaisseur du cristallin",
                    "Blanc-blanc",
                ),
                ("LAx", "Kérato plat", "Kérato cambré", "PCA", "EC", "B-B"),
                (
                    "Long. axiale",
                    "Méridien plat",
                    "Méridien cambré",
                    "Chambre antérieure",
                    "Cristallin",
                    "Diamètre cornéen",
                ),
                ("Taille du globe", "Puissance 1", "Puissance 2", "Creux antérieur", "Lentille", "Limbe à limbe"),
            ),
            ids=("Numéro patient", "Dossier", "IPP", "Référence", "Matricule"),
            eyes=("Œil", "Œil mesuré", "Côté", "Latéralité"),
            right=("OD", "droit", "œil droit", "D"),
            left=("OG", "gauche", "œil gauche", "G"),
            others=("Pachymétrie : {cct} µm", "Pupille : {pupil} mm", "Axe {axis}°", "LIO {power} D"),
            comma=True,
        ),
        Language(
            code="es",
            houses=(("Longitud axial", "K1", "K2", "Cámara anterior", "Grosor del cristalino", "Blanco-blanco"),),
            ids=("Historia", "Paciente"),
            eyes=("Ojo",),
            right=("OD", "derecho"),
            left=("izquierdo", "OI"),
            others=("Paquimetría {cct} µm", "Eje {axis}°"),
            comma=True,
        ),
        Language(
            code="it",
            houses=(("Lunghezza assiale", "K1", "K2", "Camera anteriore", "Spessore cristallino", "Bianco-bianco"),),
            ids=("Codice paziente", "Paziente"),
            eyes=("Occhio",),
            right=("destro", "OD", "dx"),
            left=("sinistro", "OS", "sx"),
            others=("Pupilla {pupil} mm", "Asse {axis}°"),
            comma=True,
        ),
        Language(
            code="pt",
            houses=(
                ("Comprimento axial", "K1", "K2", "Câmara anterior", "Espessura do cristalino", "Branco a branco"),
            ),
            ids=("Paciente", "Processo"),
            eyes=("Olho",),
            right=("direito", "OD"),
            left=("esquerdo", "OE"),
            others=("Paquimetria {cct} µm", "Eixo {axis}°"),
            comma=True,
        ),
        Language(
            code="pl",
            houses=(("Długość osiowa", "K płaskie", "K strome", "Głębokość komory", "Grubość soczewki", "Biel-biel"),),
            ids=("Nr pacjenta", "Pacjent"),
            eyes=("Oko",),
            right=("prawe", "OP"),
            left=("lewe", "OL"),
            others=("Pachymetria {cct} µm", "Oś {axis}°"),
            comma=True,
        ),
        Language(
            code="sv",
            houses=(("Axiallängd", "K1 flack", "K2 brant", "Kammardjup", "Linstjocklek", "Vit till vit"),),
            ids=("Patientnummer", "Personnr"),
            eyes=("Öga",),
            right=("höger", "OD"),
            left=("vänster", "OS"),
            others=("Pakymetri {cct} µm", "Axel {axis}°"),
            comma=True,
        ),
    ),
    prefixes=(
        *"BCDFGHIJLMNOQRSTUVWXYZ",
        "XY",
        "QZ",
        "NHS",
        "UK",
        "PT-",
        "R-",
        "2026-",
        "KV",
        "W",
        "BX",
        "0",
        "00",
        "ZZ",
    ),
    titles=(
        "Anterion",
        "Pentacam AXL - Biometry summary",
        "OA-2000",
        "Galilei G6",
        "NIDEK AL-Scan",
        "Biometrie",
        "Examen",
        "Eye Clinic North",
        "EyeSuite i9.14",
        "Topcon Aladdin HW3.0",
        "Verion 3",
        "PRE-OP BIOMETRY",
        "Augenklinik Nord",
    ),
    sentences=(
        "On examination the axial length was {AL} mm and the anterior chamber was {ACD} mm deep. "
        "Keratometry: K1 {K1} D, "
        "K2 {K2} D. Lens thickness {LT} mm, white to white {WTW} mm.",
        "We measured {AL} mm of axial length; keratometry {K1} D and {K2} D; chamber {ACD} mm; lens "
        "{LT} mm; WTW {WTW} mm.",
        "The eye is {AL} mm long, the cornea has {K1} and {K2} dioptres, ACD {ACD}, LT {LT}, WTW {WTW}.",
    ),
    kinds={
        "invoice": (
            "INVOICE\nInvoice no: {number}\nCustomer: {id}\nItem  Qty  Price\nLens case  {count}  "
            "{a}.20\nShipping  {c}.90\nTotal  {b}.45",
            "Facture {number}\nRéf. client : {id}\nMontant HT {b},10 €\nTVA {a},32 €\nTotal TTC {b},42 €",
            "Rechnung {number} vom 12.03.2026\nArtikel;Menge;Preis\nTropfen;{count};{a},49\nVersand;1;{c},90",
        ),
        "laboratory": (
            "Laborbefund\nPatientennummer: {id}\nNatrium {b} mmol/l\nKalium {c},{digit} mmol/l\nLDL "
            "{a} mg/dl\nTSH 1,{digit}2",
            "Laboratory\nMRN: {id}\nK1 vitamin 0.{digit} ug/l\nLT4 {a}.1 pmol/l\nALT {a} U/l\nAL amylase {b} U/l",
        ),
        "letter": (
            "Dear Dr. Miller,\npatient {id} was seen today for cataract in the right eye. Visual "
            "acuity 0.{digit}. Surgery on 4 May.",
            "Sehr geehrte Kollegin,\nPatient {id}: Druck beidseits {a} mmHg, Hornhaut klar, Linse "
            "getrübt. Wir bitten um Termin.",
        ),
        "spectacles": (
            "Prescription\nPatient {id}\n     Sph   Cyl   Axis\nOD  -{c}.25  -0.50  {axis}\nOS  "
            "-{c}.75  -0.25  {axis}\nPD {d}",
            "Brillenrezept\nPat.-Nr. {id}\nRA sph -{c},25 cyl -0,50 A {axis}\nLA sph -{c},00\nPD {d}",
        ),
        "tomography": (
            "OCT macula\nID {id}\nEye: OD\nCentral thickness {b} um\nVolume {c}.{digit} mm3\nSignal {a}",
            "Visual field 24-2\nPatient ID {id}\nEye: OS\nMD -{c}.{digit} dB\nPSD {c}.1 dB\nFixation losses 1/{a}",
        ),
        "delivery": (
            "Delivery note {number}\nIOL model SN60WF power +{a}.5 D  serial {id}\nIOL model SA60AT "
            "power +{d}.0 D\nA const 118.{digit}",
        ),
    },
)
