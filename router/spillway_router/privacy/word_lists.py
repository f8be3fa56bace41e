"""Lists of words with which documents say that they are private, by language (ISO 639-1).

Words that are ordinary in code or conversation, such as `private`, `personal` or `pass`, are left to a user's own
keywords. A word is found in its plural in s or es, too; other forms are listed.
"""

from __future__ import annotations

from collections.abc import Mapping


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("; "))


WORD_LISTS: Mapping[str, tuple[str, ...]] = {
    "ar": _words("كلمة المرور; كلمة السر; سري للغاية; بطاقة ائتمان; رقم الهوية; جواز السفر; السجل الطبي; حساب بنكي"),
    "cs": _words("heslo; hesla; důvěrné; důvěrný; rodné číslo; číslo účtu; kreditní karta; zdravotní dokumentace"),
    "da": _words("adgangskode; fortroligt; fortrolig; cpr-nummer; kreditkort; kontonummer; patientjournal"),
    "de": _words(
        "passwort; passwörter; kennwort; kennwörter; zugangsdaten; vertraulich; streng vertraulich; geheim; "
        "kreditkarte; kreditkarten; kreditkartennummer; kontonummer; bankverbindung; steuer-id; "
        "steueridentifikationsnummer; sozialversicherungsnummer; personalausweis; reisepassnummer; "
        "geburtsdatum; patientenakte; krankenakte; arztbrief; diagnose; gehaltsabrechnung"
    ),
    "en": _words(
        "password; passphrase; passcode; credential; confidential; strictly private; classified; secret key; "
        "ssn; social security number; national insurance number; passport number; driver's license number; "
        "driving licence number; tax id; taxpayer identification number; date of birth; credit card; "
        "debit card; card number; cvv; bank account; account number; routing number; sort code; iban; "
        "medical record; medical history; patient record; patient name; patient id; diagnosis; hipaa; "
        "personal data; personally identifiable information; pii; salary; payslip; attorney-client privilege"
    ),
    "es": _words(
        "contraseña; confidencial; confidenciales; tarjeta de crédito; tarjetas de crédito; "
        "número de cuenta; cuenta bancaria; seguridad social; fecha de nacimiento; historia clínica; "
        "historial médico; nómina"
    ),
    "fi": _words("salasana; luottamuksellinen; henkilötunnus; luottokortti; tilinumero; potilaskertomus"),
    "fr": _words(
        "mot de passe; mots de passe; confidentiel; confidentielle; carte bancaire; cartes bancaires; "
        "carte de crédit; numéro de compte; sécurité sociale; date de naissance; dossier médical; "
        "dossiers médicaux; secret médical; fiche de paie; bulletin de salaire"
    ),
    "hi": _words("पासवर्ड; गोपनीय; आधार संख्या; क्रेडिट कार्ड; बैंक खाता; जन्म तिथि"),
    "it": _words(
        "password; parola d'ordine; riservato; riservata; confidenziale; carta di credito; carte di credito; "
        "conto corrente; codice fiscale; data di nascita; cartella clinica; busta paga"
    ),
    "ja": _words(
        "パスワード; 暗証番号; 機密; 社外秘; 極秘; クレジットカード; 口座番号; マイナンバー; 個人番号; "
        "個人情報; 生年月日; 診療録; カルテ; 診断書; 給与明細"
    ),
    "ko": _words("비밀번호; 기밀; 대외비; 신용카드; 계좌번호; 주민등록번호; 개인정보; 생년월일; 진료기록"),
    "nl": _words(
        "wachtwoord; wachtwoorden; vertrouwelijk; vertrouwelijke; creditcard; rekeningnummer; bsn; "
        "burgerservicenummer; geboortedatum; medisch dossier; patiëntendossier; loonstrook"
    ),
    "no": _words("passord; fortrolig; konfidensielt; fødselsnummer; kredittkort; kontonummer; pasientjournal"),
    "pl": _words(
        "hasło; hasła; poufne; poufny; tajne; karta kredytowa; karty kredytowej; numer konta; pesel; "
        "data urodzenia; dokumentacja medyczna; historia choroby"
    ),
    "pt": _words(
        "senha; palavra-passe; confidencial; confidenciais; cartão de crédito; cartões de crédito; "
        "conta bancária; número da conta; cpf; data de nascimento; prontuário médico; processo clínico"
    ),
    "ru": _words(
        "пароль; пароля; пароли; конфиденциально; секретно; кредитная карта; кредитной карты; номер счета; "
        "номер счёта; паспортные данные; снилс; инн; дата рождения; история болезни; персональные данные; "
        "медицинская карта"
    ),
    "sv": _words("lösenord; konfidentiellt; sekretess; personnummer; kreditkort; kontonummer; patientjournal"),
    "tr": _words("parola; şifre; gizli; kredi kartı; hesap numarası; kimlik numarası; doğum tarihi; hasta dosyası"),
    "uk": _words("пароль; пароля; конфіденційно; таємно; кредитна картка; номер рахунку; дата народження"),
    "zh": _words(
        "密码; 密碼; 口令; 机密; 機密; 绝密; 保密; 信用卡; 银行卡号; 銀行帳號; 银行账号; 身份证号; "
        "身分證字號; 护照号码; 出生日期; 个人信息; 個人資料; 病历; 病歷; 工资单"
    ),
}
