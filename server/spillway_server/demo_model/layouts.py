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
        name="iolmaster_en",
        language="en",
        right="OD (right)",
        left="OS (left)",
        head=("IOLMaster 700 Biometry", "Patient ID{s}{id}  Exam {date}", "Eye{s}{eye}"),
        body=(
            "AL{s}{AL} mm  SNR {snr}",
            "ACD{s}{ACD} mm  LT{s}{LT} mm",
            "K1{s}{K1} D @ {axis}°",
            "K2{s}{K2} D @ {axis2}°",
            "WTW{s}{WTW} mm  CCT {cct} µm",
        ),
        tail=("IOL {iol} D  A const {acon}",),
    ),
    Layout(
        name="lenstar_en",
        language="en",
        right="OD",
        left="OS",
        head=("LENSTAR LS 900 {date}", "Exam no.{s}{id}", "Measured eye{s}{eye}"),
        body=(
            "Axial length [mm]{s}{AL} SD {sd}",
            "Corneal thickness [µm]{s}{cct}",
            "Anterior chamber depth [mm]{s}{ACD} SD {sd}",
            "Lens thickness [mm]{s}{LT}",
            "Flat meridian K1 [D]{s}{K1}",
            "Steep meridian K2 [D]{s}{K2}",
            "White to white [mm]{s}{WTW}",
            "Pupil [mm]{s}{pupil}",
        ),
        tail=("End of report",),
    ),
    Layout(
        name="argos_en",
        language="en",
        right="OD",
        left="OS",
        head=("ARGOS Biometer", "ID {id} | {eye} | {date}"),
        body=(
            "AL | ACD | LT | CCT",
            "{AL} | {ACD} | {LT} | {cct}",
            "K1 | K2 | WTW | PD",
            "{K1} | {K2} | {WTW} | {pupil}",
        ),
        tail=("Target IOL {iol} D",),
        shuffle=False,
    ),
    Layout(
        name="anterion_en",
        language="en",
        right="Right eye",
        left="Left eye",
        head=("ANTERION Cataract App", "{eye}  {date}", "Patient{s}{id}"),
        body=(
            "SimK flat{s}{K1} D ({r1} mm)",
            "SimK steep{s}{K2} D ({r2} mm)",
            "AL{s}{AL} mm",
            "ACD{s}{ACD} mm (CCT {cct} µm)",
            "Lens thickness{s}{LT} mm",
            "WTW{s}{WTW} mm",
        ),
        tail=("Pupil {pupil} mm  Quality OK",),
    ),
    Layout(
        name="iolmaster_de",
        language="de",
        right="rechts (OD)",
        left="links (OS)",
        head=("IOLMaster Biometrie {date}", "Patienten-Nr.{s}{id}", "Auge{s}{eye}"),
        body=(
            "Achslänge{s}{AL} mm  SNR {snr}",
            "Vorderkammertiefe{s}{ACD} mm",
            "Linsendicke{s}{LT} mm",
            "R1{s}{K1} mm @ {axis}°",
            "R2{s}{K2} mm @ {axis2}°",
            "Weiß-zu-Weiß{s}{WTW} mm",
        ),
        tail=("IOL {iol} dpt  A-Konst. {acon}",),
        comma=True,
        radii=True,
    ),
    Layout(
        name="lenstar_fr",
        language="fr",
        right="droit (OD)",
        left="gauche (OS)",
        head=("LENSTAR Biométrie {date}", "N° patient{s}{id}", "Œil{s}{eye}"),
        body=(
            "Longueur axiale{s}{AL} mm ± {sd}",
            "Prof. chambre ant.{s}{ACD} mm",
            "Épaisseur cristallin{s}{LT} mm",
            "K1{s}{K1} D à {axis}°",
            "K2{s}{K2} D à {axis2}°",
            "Blanc à blanc{s}{WTW} mm",
            "Pupille{s}{pupil} mm",
        ),
        tail=("LIO {iol} D",),
        comma=True,
    ),
    Layout(
        name="argos_es",
        language="es",
        right="derecho (OD)",
        left="izquierdo (OS)",
        head=("ARGOS Biometría", "Historia{s}{id}  Fecha {date}", "Ojo{s}{eye}"),
        body=(
            "Longitud axial{s}{AL} mm",
            "Prof. cámara{s}{ACD} mm",
            "Grosor cristalino{s}{LT} mm",
            "K1 / K2{s}{K1} / {K2} D",
            "Blanco-blanco{s}{WTW} mm",
            "Paquimetría{s}{cct} µm",
        ),
        tail=("LIO {iol} D  const. A {acon}",),
        comma=True,
    ),
    Layout(
        name="aladdin_it",
        language="it",
        right="destro (OD)",
        left="sinistro (OS)",
        head=("ALADDIN Biometria {date}", "Codice{s}{id}", "Occhio{s}{eye}"),
        body=(
            "Lunghezza assiale{s}{AL} mm",
            "Camera anteriore{s}{ACD} mm  CCT {cct}",
            "Spessore lente{s}{LT} mm",
            "K1{s}{K1} D  asse {axis}°",
            "K2{s}{K2} D  asse {axis2}°",
            "Bianco-bianco{s}{WTW} mm",
        ),
        tail=("IOL {iol} D",),
        comma=True,
    ),
    Layout(
        name="oa2000_nl",
        language="nl",
        right="rechts (OD)",
        left="links (OS)",
        head=("OA-2000 Meting {date}", "Dossier{s}{id}", "Oog{s}{eye}"),
        body=(
            "Aslengte{s}{AL} mm",
            "Voorkamerdiepte{s}{ACD} mm",
            "Lensdikte{s}{LT} mm",
            "Straal R1{s}{K1} mm",
            "Straal R2{s}{K2} mm",
            "Wit-wit{s}{WTW} mm  pupil {pupil}",
        ),
        tail=("Einde",),
        comma=True,
        radii=True,
    ),
    Layout(
        name="export_en",
        language="en",
        right="OD",
        left="OS",
        head=("exam_id={id}", "date={date}", "eye={eye}"),
        body=(
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
        tail=("eof=1",),
    ),
)

UNSEEN_LAYOUTS: tuple[Layout, ...] = (
    # Known labels in an arrangement no training layout has: some documents should still come out right.
    Layout(
        name="revo_en",
        language="en",
        right="OD",
        left="OS",
        head=("REVO Biometry Report", "Exam {date}  Eye{s}{eye}  ID{s}{id}"),
        body=(
            "AL {AL} mm, ACD {ACD} mm, LT {LT} mm",
            "CCT {cct} µm, WTW {WTW} mm",
            "K1 {K1} D, K2 {K2} D, axis {axis}°",
        ),
        tail=("IOL {iol} D",),
    ),
    # German labels with dioptres and abbreviations that occur only here.
    Layout(
        name="anterion_de",
        language="de",
        right="rechts (OD)",
        left="links (OS)",
        head=("ANTERION Katarakt", "Patienten-Nr.{s}{id}  vom {date}", "Auge{s}{eye}"),
        body=(
            "Achslänge (AL){s}{AL} mm",
            "VKT (ACD){s}{ACD} mm",
            "Linsendicke (LT){s}{LT} mm",
            "K flach (K1){s}{K1} dpt",
            "K steil (K2){s}{K2} dpt",
            "WW-Abstand (WTW){s}{WTW} mm",
        ),
        tail=("Hornhaut {cct} µm",),
        comma=True,
    ),
    # Prose.
    Layout(
        name="letter_en",
        language="en",
        right="right eye (OD)",
        left="left eye (OS)",
        head=("Dear colleague, patient {id} was seen on {date}, {eye}.",),
        body=(
            "The axial length (AL) is {AL} mm with an anterior chamber (ACD) of {ACD} mm.",
            "Keratometry: K1 {K1} D and K2 {K2} D at {axis2}°. White to white is {WTW} mm.",
            "The lens (LT) measures {LT} mm, the cornea {cct} µm.",
        ),
        tail=("Kind regards",),
        shuffle=False,
    ),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in TRAINING_LAYOUTS + UNSEEN_LAYOUTS}
