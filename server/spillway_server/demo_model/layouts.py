"""Report layouts of the demo documents: what an eye-biometry print-out looks like, as data.

A layout is a list of line templates. `{AL}`, `{K1}`, ... stand for printed numerals, `{s}` for the document's
label separator, `{date}`, `{cct}`, `{snr}`, ... for distractors. Lines of `body` may be shuffled, so that a
reader has to use the labels and not the positions. The device names are there because real reports carry
them; the layouts are loose imitations made for tests and no copies of any vendor's report.
"""

from __future__ import annotations

from dataclasses import dataclass

FIELDS = ("AL", "K1", "K2", "ACD", "LT", "WTW")
KEYS = ("id", "eye", *FIELDS)


@dataclass(frozen=True, slots=True)
class Layout:
    """One report form. `comma`: decimal comma. `radii`: K1/K2 are corneal radii in mm instead of dioptres."""

    name: str
    language: str
    right: str
    left: str
    head: tuple[str, ...]
    body: tuple[str, ...]
    tail: tuple[str, ...]
    comma: bool = False
    radii: bool = False
    shuffle: bool = True


TRAINING_LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "iolmaster_en",
        "en",
        "OD (right)",
        "OS (left)",
        ("IOLMaster 700 Biometry", "Patient ID{s}{id}  Exam {date}", "Eye{s}{eye}"),
        (
            "AL{s}{AL} mm  SNR {snr}",
            "ACD{s}{ACD} mm  LT{s}{LT} mm",
            "K1{s}{K1} D @ {axis}°",
            "K2{s}{K2} D @ {axis2}°",
            "WTW{s}{WTW} mm  CCT {cct} µm",
        ),
        ("IOL {iol} D  A const {acon}",),
    ),
    Layout(
        "lenstar_en",
        "en",
        "OD",
        "OS",
        ("LENSTAR LS 900 {date}", "Exam no.{s}{id}", "Measured eye{s}{eye}"),
        (
            "Axial length [mm]{s}{AL} SD {sd}",
            "Corneal thickness [µm]{s}{cct}",
            "Anterior chamber depth [mm]{s}{ACD} SD {sd}",
            "Lens thickness [mm]{s}{LT}",
            "Flat meridian K1 [D]{s}{K1}",
            "Steep meridian K2 [D]{s}{K2}",
            "White to white [mm]{s}{WTW}",
            "Pupil [mm]{s}{pupil}",
        ),
        ("End of report",),
    ),
    Layout(
        "argos_en",
        "en",
        "OD",
        "OS",
        ("ARGOS Biometer", "ID {id} | {eye} | {date}"),
        (
            "AL | ACD | LT | CCT",
            "{AL} | {ACD} | {LT} | {cct}",
            "K1 | K2 | WTW | PD",
            "{K1} | {K2} | {WTW} | {pupil}",
        ),
        ("Target IOL {iol} D",),
        shuffle=False,
    ),
    Layout(
        "anterion_en",
        "en",
        "Right eye",
        "Left eye",
        ("ANTERION Cataract App", "{eye}  {date}", "Patient{s}{id}"),
        (
            "SimK flat{s}{K1} D ({r1} mm)",
            "SimK steep{s}{K2} D ({r2} mm)",
            "AL{s}{AL} mm",
            "ACD{s}{ACD} mm (CCT {cct} µm)",
            "Lens thickness{s}{LT} mm",
            "WTW{s}{WTW} mm",
        ),
        ("Pupil {pupil} mm  Quality OK",),
    ),
    Layout(
        "iolmaster_de",
        "de",
        "rechts (OD)",
        "links (OS)",
        ("IOLMaster Biometrie {date}", "Patienten-Nr.{s}{id}", "Auge{s}{eye}"),
        (
            "Achslänge{s}{AL} mm  SNR {snr}",
            "Vorderkammertiefe{s}{ACD} mm",
            "Linsendicke{s}{LT} mm",
            "R1{s}{K1} mm @ {axis}°",
            "R2{s}{K2} mm @ {axis2}°",
            "Weiß-zu-Weiß{s}{WTW} mm",
        ),
        ("IOL {iol} dpt  A-Konst. {acon}",),
        comma=True,
        radii=True,
    ),
    Layout(
        "lenstar_fr",
        "fr",
        "droit (OD)",
        "gauche (OS)",
        ("LENSTAR Biométrie {date}", "N° patient{s}{id}", "Œil{s}{eye}"),
        (
            "Longueur axiale{s}{AL} mm ± {sd}",
            "Prof. chambre ant.{s}{ACD} mm",
            "Épaisseur cristallin{s}{LT} mm",
            "K1{s}{K1} D à {axis}°",
            "K2{s}{K2} D à {axis2}°",
            "Blanc à blanc{s}{WTW} mm",
            "Pupille{s}{pupil} mm",
        ),
        ("LIO {iol} D",),
        comma=True,
    ),
    Layout(
        "argos_es",
        "es",
        "derecho (OD)",
        "izquierdo (OS)",
        ("ARGOS Biometría", "Historia{s}{id}  Fecha {date}", "Ojo{s}{eye}"),
        (
            "Longitud axial{s}{AL} mm",
            "Prof. cámara{s}{ACD} mm",
            "Grosor cristalino{s}{LT} mm",
            "K1 / K2{s}{K1} / {K2} D",
            "Blanco-blanco{s}{WTW} mm",
            "Paquimetría{s}{cct} µm",
        ),
        ("LIO {iol} D  const. A {acon}",),
        comma=True,
    ),
    Layout(
        "aladdin_it",
        "it",
        "destro (OD)",
        "sinistro (OS)",
        ("ALADDIN Biometria {date}", "Codice{s}{id}", "Occhio{s}{eye}"),
        (
            "Lunghezza assiale{s}{AL} mm",
            "Camera anteriore{s}{ACD} mm  CCT {cct}",
            "Spessore lente{s}{LT} mm",
            "K1{s}{K1} D  asse {axis}°",
            "K2{s}{K2} D  asse {axis2}°",
            "Bianco-bianco{s}{WTW} mm",
        ),
        ("IOL {iol} D",),
        comma=True,
    ),
    Layout(
        "oa2000_nl",
        "nl",
        "rechts (OD)",
        "links (OS)",
        ("OA-2000 Meting {date}", "Dossier{s}{id}", "Oog{s}{eye}"),
        (
            "Aslengte{s}{AL} mm",
            "Voorkamerdiepte{s}{ACD} mm",
            "Lensdikte{s}{LT} mm",
            "Straal R1{s}{K1} mm",
            "Straal R2{s}{K2} mm",
            "Wit-wit{s}{WTW} mm  pupil {pupil}",
        ),
        ("Einde",),
        comma=True,
        radii=True,
    ),
    Layout(
        "export_en",
        "en",
        "OD",
        "OS",
        ("exam_id={id}", "date={date}", "eye={eye}"),
        (
            "al_mm={AL}",
            "k1_d={K1}",
            "k2_d={K2}",
            "acd_mm={ACD}",
            "lt_mm={LT}",
            "wtw_mm={WTW}",
            "cct_um={cct}",
            "iol_d={iol}",
            "snr={snr}",
        ),
        ("eof=1",),
    ),
)

UNSEEN_LAYOUTS: tuple[Layout, ...] = (
    # Known labels in an arrangement no training layout has: some documents should still come out right.
    Layout(
        "revo_en",
        "en",
        "OD",
        "OS",
        ("REVO Biometry Report", "Exam {date}  Eye{s}{eye}  ID{s}{id}"),
        (
            "AL {AL} mm, ACD {ACD} mm, LT {LT} mm",
            "CCT {cct} µm, WTW {WTW} mm",
            "K1 {K1} D, K2 {K2} D, axis {axis}°",
        ),
        ("IOL {iol} D",),
    ),
    # German labels with dioptres and abbreviations that occur only here.
    Layout(
        "anterion_de",
        "de",
        "rechts (OD)",
        "links (OS)",
        ("ANTERION Katarakt", "Patienten-Nr.{s}{id}  vom {date}", "Auge{s}{eye}"),
        (
            "Achslänge (AL){s}{AL} mm",
            "VKT (ACD){s}{ACD} mm",
            "Linsendicke (LT){s}{LT} mm",
            "K flach (K1){s}{K1} dpt",
            "K steil (K2){s}{K2} dpt",
            "WW-Abstand (WTW){s}{WTW} mm",
        ),
        ("Hornhaut {cct} µm",),
        comma=True,
    ),
    # Prose.
    Layout(
        "letter_en",
        "en",
        "right eye (OD)",
        "left eye (OS)",
        ("Dear colleague, patient {id} was seen on {date}, {eye}.",),
        (
            "The axial length (AL) is {AL} mm with an anterior chamber (ACD) of {ACD} mm.",
            "Keratometry: K1 {K1} D and K2 {K2} D at {axis2}°. White to white is {WTW} mm.",
            "The lens (LT) measures {LT} mm, the cornea {cct} µm.",
        ),
        ("Kind regards",),
        shuffle=False,
    ),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in TRAINING_LAYOUTS + UNSEEN_LAYOUTS}
