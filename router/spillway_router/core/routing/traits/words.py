"""The words by which the scorer knows a factor and the classifier a task, by language.

A word or phrase counts as a whole; one that ends in `*` also with any ending. Case does not matter. They are short on
purpose: configuration adds the words of a team's own trade (`policy.words`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

Words = Mapping[str, tuple[str, ...]]
"""Words by the factor or task that they speak for."""

_ENGLISH = {
    "analysis": "analy*|compar*|evaluat*|assess*|trade-off*|tradeoff*|pros and cons|root cause|why does|why do"
    "|explain why|strateg*|implications of|critique|review this|weigh|step-by-step plan|plan for|diagnos*|optimi*",
    "creativity": "write a story|write a poem|short story|poem|brainstorm*|invent*|imagine|creative*|slogan*|lyrics"
    "|come up with|design a|name ideas|script for|rewrite in the style|novel",
    "personal_data": "my name is|i am * years old|my age|my salary|my address|my birthday|my health|my diagnosis"
    "|my medication|my husband|my wife|my partner|my boss|my goals|i feel",
    "simple": "what is|what's|who is|when is|when was|where is|define|definition of|how many|yes or no|true or false"
    "|hello|hi|hey|thanks|thank you|good morning|what does * mean|spell|capital of",
    "examples": "for example|for instance|e.g.|example:|examples:|input:|here is an example|such as this|like this:",
    "faq": "reset my password|forgot my password|opening hours|refund*|cancel my subscription|contact support"
    "|shipping time|delivery time|how much does it cost|pricing|free trial|delete my account|change my plan",
    "code": "python|javascript|typescript|java|golang|rust|c++|c#|sql|bash|html|css|react|function that|unit test*"
    "|refactor*|stack trace|traceback|regex|compile*|debug*|source code|code review|pull request|api endpoint"
    "|dockerfile|kubernetes|class method|algorithm|write code|this code|codebase",
    "extraction": "extract*|pull out|list all the|find all|parse*|fill in the fields|as json|into json|into a table"
    "|as csv|key-value|which fields",
    "summary": "summar*|tl;dr|tldr|in a nutshell|key points|main points|condense|shorten this|recap|abstract of",
    "translation": "translat*|in english|in spanish|in german|in french|into english|into spanish|into german"
    "|into french|how do you say",
    "reasoning": "step by step|prove*|proof|solve*|equation|theorem|logic puzzle|riddle|probability|derive|deduce"
    "|calculate|how many ways|if and only if|reason through",
}
_GERMAN = {
    "analysis": "analysier*|vergleich*|bewert*|beurteil*|vor- und nachteile|vor und nachteile|ursache|begründ*"
    "|strategie*|abwäg*|warum ist|plane*",
    "creativity": "schreib eine geschichte|geschichte|gedicht|erfinde|brainstorm*|kreativ*|slogan|entwirf|ideen für",
    "personal_data": "mein name ist|ich heiße|mein gehalt|meine adresse|mein geburtstag|meine gesundheit|meine frau"
    "|mein mann|mein chef|ich fühle",
    "simple": "was ist|wer ist|wann ist|wo ist|definiere|definition von|wie viele|ja oder nein|hallo|danke|guten morgen"
    "|was bedeutet|hauptstadt von",
    "examples": "zum beispiel|z.b.|beispiel:|beispiele:",
    "faq": "passwort zurücksetzen|passwort vergessen|öffnungszeiten|rückerstattung|abo kündigen|kündigen|lieferzeit"
    "|was kostet|konto löschen",
    "code": "quellcode|programmier*|funktion, die|code schreiben|diesen code|fehlermeldung|datenbankabfrage",
    "extraction": "extrahier*|lies * aus|liste alle|als json|als tabelle|als csv|finde alle",
    "summary": "zusammenfass*|fasse * zusammen|fass * zusammen|kernpunkte|kurzfassung",
    "translation": "übersetz*|auf englisch|auf deutsch|ins englische|ins deutsche",
    "reasoning": "schritt für schritt|beweis*|gleichung|löse|wahrscheinlichkeit|berechne|leite * her|rätsel",
}
_SPANISH = {
    "analysis": "analiz*|compar*|evalú*|evalu*|ventajas y desventajas|pros y contras|por qué|estrateg*|causa raíz",
    "creativity": "escribe un cuento|escribe una historia|poema|inventa|imagina|creativ*|lema|diseña|ideas para",
    "personal_data": "me llamo|mi nombre es|mi sueldo|mi salario|mi dirección|mi cumpleaños|mi salud|mi esposa"
    "|mi marido|mi jefe|me siento",
    "simple": "qué es|quién es|cuándo es|dónde está|define|definición de|cuántos|cuántas|sí o no|hola|gracias"
    "|buenos días|qué significa|capital de",
    "examples": "por ejemplo|ejemplo:|ejemplos:",
    "faq": "restablecer mi contraseña|olvidé mi contraseña|horario*|reembolso*|cancelar mi suscripción|cuánto cuesta"
    "|precio*|tiempo de entrega|eliminar mi cuenta",
    "code": "código|programa*|función que|prueba unitaria|depura*|refactoriza*|base de datos",
    "extraction": "extrae*|extraer|lista todos|lista todas|como json|en json|en una tabla|encuentra todos",
    "summary": "resum*|puntos clave|ideas principales",
    "translation": "traduc*|en inglés|en español|al inglés|al español",
    "reasoning": "paso a paso|demuestra*|ecuación|resuelve|probabilidad|calcula|acertijo",
}
_FRENCH = {
    "analysis": "analys*|compar*|évalu*|avantages et inconvénients|pour et contre|pourquoi|stratégi*|cause profonde",
    "creativity": "écris une histoire|écrivez une histoire|poème|invente*|imagine*|créati*|slogan|conçois|idées pour",
    "personal_data": "je m'appelle|mon nom est|mon salaire|mon adresse|mon anniversaire|ma santé|ma femme|mon mari"
    "|mon patron|je me sens",
    "simple": "qu'est-ce que|qui est|quand est|où est|définis|définition de|combien de|oui ou non|bonjour|merci"
    "|que signifie|capitale de",
    "examples": "par exemple|exemple :|exemple:|exemples:",
    "faq": "réinitialiser mon mot de passe|mot de passe oublié|horaires|rembours*|annuler mon abonnement"
    "|combien coûte|tarif*|délai de livraison|supprimer mon compte",
    "code": "code source|programme*|fonction qui|test unitaire|débogu*|base de données",
    "extraction": "extrai*|liste tous|liste toutes|en json|en tableau|trouve tous",
    "summary": "résum*|points clés|idées principales",
    "translation": "tradui*|en anglais|en français",
    "reasoning": "étape par étape|démontre*|équation|résous|probabilité|calcule|énigme",
}

WORDS: Mapping[str, Words] = MappingProxyType(
    {
        language: MappingProxyType({name: tuple(words.split("|")) for name, words in lists.items()})
        for language, lists in {"en": _ENGLISH, "de": _GERMAN, "es": _SPANISH, "fr": _FRENCH}.items()
    }
)
"""The words of each language."""
KINDS = tuple(_ENGLISH)
"""The factors and tasks that words speak for."""
