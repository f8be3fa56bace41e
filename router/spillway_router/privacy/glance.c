/* A glance at ASCII text that rules out most private content: glance.py says what it means, and is the reference.
 *
 * One pass over the text. The bytes with the kind 0, most of a text, are skipped; at each of the others the expressions
 * of glance.py that can begin, end or go on there are checked, by looking at the bytes before and after it, never
 * beyond the text. `Kept` is the state of the expressions that are matched on the text without its dropped bytes.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum { HOLDS = 1, ENCODED = 2, MATCHES = 4, ESCAPED = 8, FOREIGN = 16 };

/* The kinds of bytes: PAIR are [0-9L-V]; MARK may end or begin a match, KEPT are those that glance.py does not drop,
 * BASE64 those of both alphabets. */
enum { DIGIT = 1, UPPER = 2, LOWER = 4, HEX = 8, PAIR = 16, MARK = 32, KEPT = 64, BASE64 = 128 };

static unsigned char kinds[256];

static void set_kinds(void)
{
    for (int c = '0'; c <= '9'; c++) kinds[c] = DIGIT | HEX | PAIR | MARK | KEPT;
    for (int c = 'A'; c <= 'Z'; c++) kinds[c] = UPPER | MARK | KEPT;
    for (int c = 'a'; c <= 'z'; c++) kinds[c] = LOWER;
    for (int c = 'A'; c <= 'F'; c++) kinds[c] |= HEX;
    for (int c = 'a'; c <= 'f'; c++) kinds[c] |= HEX;
    for (int c = 'L'; c <= 'V'; c++) kinds[c] |= PAIR;
    for (const char *c = " @%&\\ux\""; *c; c++) kinds[(unsigned char)*c] |= KEPT;
    for (const char *c = "@%&\\=_-.w"; *c; c++) kinds[(unsigned char)*c] |= MARK;
    for (int c = 128; c < 256; c++) kinds[c] = MARK;
    for (int c = 0; c < 128; c++)
        if (kinds[c] & (DIGIT | UPPER | LOWER)) kinds[c] |= BASE64;
    for (const char *c = "+/_-"; *c; c++) kinds[(unsigned char)*c] |= BASE64;
}

typedef struct {
    const unsigned char *s;
    Py_ssize_t n;
} Text;

static inline int kind(Text t, Py_ssize_t at)
{
    return at >= 0 && at < t.n ? kinds[t.s[at]] : 0;
}

static inline int is(Text t, Py_ssize_t at, char c)
{
    return at >= 0 && at < t.n && t.s[at] == (unsigned char)c;
}

static inline int all(Text t, Py_ssize_t from, Py_ssize_t to, int kinds_wanted)
{
    if (from < 0 || to > t.n) return 0;
    for (Py_ssize_t at = from; at < to; at++)
        if (!(kinds[t.s[at]] & kinds_wanted)) return 0;
    return 1;
}

/* Whether `word` begins at `at`, or ends before it. */
static inline int begins(Text t, Py_ssize_t at, const char *word)
{
    Py_ssize_t length = (Py_ssize_t)strlen(word);
    return at >= 0 && at + length <= t.n && memcmp(t.s + at, word, (size_t)length) == 0;
}

static inline int ends(Text t, Py_ssize_t at, const char *word)
{
    return begins(t, at - (Py_ssize_t)strlen(word), word);
}

static inline int one_of(Text t, Py_ssize_t at, const char *characters)
{
    return at >= 0 && at < t.n && t.s[at] && strchr(characters, t.s[at]) != NULL;
}

static int begins_any_case(Text t, Py_ssize_t at, const char *lower)
{
    if (at < 0) return 0;
    for (; *lower; at++, lower++)
        if (at >= t.n || (t.s[at] | 32) != (unsigned char)*lower) return 0;
    return 1;
}

/* The sixth digit of a number whose digits are at most six other characters apart, none of them a letter. */
static int is_sixth_digit(Text t, Py_ssize_t at)
{
    for (int digits = 1; digits < 6; digits++) {
        Py_ssize_t before = at - 1;
        while (before >= 0 && at - before <= 7 && !(kinds[t.s[before]] & (DIGIT | UPPER | LOWER))) before--;
        if (before < 0 || at - before > 7 || !(kinds[t.s[before]] & DIGIT)) return 0;
        at = before;
    }
    return 1;
}

static int matches_at(Text t, Py_ssize_t at)
{
    unsigned char c = t.s[at];
    int k = kinds[c];
    if (k & (DIGIT | UPPER)) {
        if (k & PAIR && kind(t, at + 1) & PAIR && kind(t, at + 2) & (UPPER | LOWER)) {
            Py_ssize_t end = is(t, at - 1, ' ') ? at - 1 : at;
            if (all(t, end - 6, end, UPPER | LOWER)) return 1;
        }
        if (k & DIGIT) return is_sixth_digit(t, at);
        if (kind(t, at - 1) & DIGIT && all(t, at - 4, at, DIGIT) && all(t, at - 9, at - 4, UPPER)) return 1;
        if (c == 'A') {
            if (begins(t, at, "AIza")) return 1;
            return one_of(t, at + 1, "KSBC") && one_of(t, at + 2, "ICA") && is(t, at + 3, 'A') &&
                   all(t, at + 4, at + 20, DIGIT | UPPER);
        }
        if (c == 'J') return ends(t, at, "ey");
        if (c == 'P') return begins(t, at, "PRIVATE KEY") || begins(t, at, "PuTTY-");
        if (c != 'W') return 0;
    }
    switch (c) {
    case 'w':
    case 'W':
        if (!is(t, at - 1, 'a') && !is(t, at - 1, 'A')) return 0;
        if (!is(t, at + 1, 's') && !is(t, at + 1, 'S')) return 0;
        return begins_any_case(t, at + (is(t, at + 2, '_') ? 3 : 2), "secret");
    case '@': return (kind(t, at + 1) & (DIGIT | UPPER | LOWER)) != 0;
    case '.': return ends(t, at, "ya29") || (ends(t, at, "hooks") && begins(t, at + 1, "slack"));
    case '-':
        return ends(t, at, "sk") || ends(t, at, "glpat") || ends(t, at, "glptt") || ends(t, at, "glrt") ||
               ends(t, at, "gldt") || ends(t, at, "glcbt") || (kind(t, at - 1) & LOWER && ends(t, at - 1, "xox")) ||
               ends(t, at, "xapp") || ends(t, at, "xai") || ends(t, at, "pplx") || ends(t, at, "GOCSPX") ||
               ends(t, at, "pypi");
    case '_':
        return ends(t, at, "rk") || ends(t, at, "sk") || (one_of(t, at - 1, "opsur") && ends(t, at - 1, "gh")) ||
               ends(t, at, "hf") || ends(t, at, "r8") || ends(t, at, "tgp") || ends(t, at, "whsec") ||
               ends(t, at, "npm") || ends(t, at, "dckr") || (ends(t, at, "github") && begins(t, at + 1, "pat_"));
    }
    return 0;
}

static int is_encoded_at(Text t, Py_ssize_t at)
{
    switch (t.s[at]) {
    case '%': return all(t, at + 1, at + 3, HEX) || (is(t, at + 1, 'u') && all(t, at + 2, at + 4, HEX));
    case '=': /* quoted-printable: two bytes, an equals sign, the end of a line that goes on, a header's beginning */
        if (is(t, at + 1, '?')) return (kind(t, at + 2) & (UPPER | LOWER)) != 0;
        if (is(t, at + 1, '\\')) {
            for (at++; is(t, at, '\\'); at++) {}
            return is(t, at, 'n') || is(t, at, 'r');
        }
        if (is(t, at + 1, '3') && is(t, at + 2, 'D')) return 1;
        return is(t, at + 3, '=') && one_of(t, at + 1, "0123456789ABCDEF") && one_of(t, at + 2, "0123456789ABCDEF") &&
               one_of(t, at + 4, "0123456789ABCDEF") && one_of(t, at + 5, "0123456789ABCDEF");
    case '&': return is(t, at + 1, '#') || (kind(t, at + 1) & (UPPER | LOWER)) != 0;
    case '\\':
        return is(t, at + 1, 'x') || (is(t, at + 1, 'u') && (kind(t, at + 2) & HEX || is(t, at + 2, '{'))) ||
               (is(t, at + 1, 'U') && all(t, at + 2, at + 10, HEX));
    }
    return 0;
}

/* What the bytes that were kept up to now end with. */
typedef struct {
    int run;       /* characters of [A-Z0-9ux] in a row */
    int begin;     /* characters of "BEGIN" */
    int digits;    /* digits with at most six characters of [ \ux] between them */
    int gap;       /* characters of [ \ux] after the latest digit */
    int backslash; /* whether the latest one is a backslash */
} Kept;

/* Add a byte that is kept; return whether the bytes now end with what may be a pattern or an encoding. */
static int holds_with(Kept *kept, unsigned char c)
{
    int k = kinds[c], after_backslash = kept->backslash;
    kept->backslash = 0;
    if (k & DIGIT) {
        kept->digits = kept->digits && kept->gap <= 6 ? kept->digits + 1 : 1;
        kept->gap = kept->begin = 0;
        return ++kept->run >= 8 || kept->digits >= 6;
    }
    if (k & UPPER) {
        kept->digits = 0;
        kept->begin = c == 'B' ? 1 : c == "BEGIN"[kept->begin] ? kept->begin + 1 : 0;
        return ++kept->run >= 8 || kept->begin == 5 || (c == 'U' && after_backslash);
    }
    kept->begin = 0;
    kept->gap++;
    switch (c) {
    case 'u':
    case 'x': return ++kept->run >= 8 || after_backslash;
    case '\\': kept->backslash = 1; kept->run = 0; return 0;
    case '"': kept->run = kept->digits = 0; return 0;
    }
    return 1; /* @ % & */
}

static int seen_in(Text t)
{
    int seen = 0;
    Kept kept = {0, 0, 0, 0, 0};
    for (Py_ssize_t at = 0; at < t.n; at++) {
        unsigned char c = t.s[at];
        int k = kinds[c];
        if (!(k & (MARK | KEPT))) continue;
        if (c == ' ') { /* nearly every sixth byte of a text */
            kept.run = kept.begin = kept.backslash = 0;
            kept.gap++;
            continue;
        }
        if (k & MARK) {
            if (c >= 128) return FOREIGN;
            if (c == '\\') seen |= ESCAPED;
            if (!(seen & MATCHES) && matches_at(t, at)) seen |= MATCHES;
            if (!(seen & ENCODED) && is_encoded_at(t, at)) seen |= ENCODED;
        }
        if (k & KEPT && !(seen & HOLDS) && holds_with(&kept, c)) seen |= HOLDS;
    }
    return seen;
}

enum { LONG = 24 /* characters of base64 that may hold a few words */ };

/* Whether there are LONG characters of base64 in a row. Of each LONG bytes only as many are looked at as belong together. */
static int has_long_run(Text t)
{
    for (Py_ssize_t start = 0; start + LONG <= t.n;) {
        Py_ssize_t at = start + LONG - 1;
        while (at >= start && kinds[t.s[at]] & BASE64) at--;
        if (at < start) return 1;
        start = at + 1;
    }
    return 0;
}

static int is_space(Text t, Py_ssize_t at)
{
    return one_of(t, at, " \t\n\f\r");
}

/* Whether "\s?:\s?\*" and eight characters of base64 stand at `at`. */
static int is_member_with_base64(Text t, Py_ssize_t at)
{
    if (!is(t, at++, '"')) return 0;
    at += is_space(t, at);
    if (!is(t, at++, ':')) return 0;
    at += is_space(t, at);
    while (is(t, at, '\\')) at++;
    return is(t, at, '"') && all(t, at + 1, at + 9, BASE64);
}

/* Whether data\*"\s?:\s?\*" and eight characters of base64 are in the text, or base64, and four. Both are looked for from
 * a byte that is rarer than the letters before it. */
static int has_place_for_base64(Text t)
{
    const unsigned char *end = t.s + t.n, *found;
    for (found = t.s; (found = memchr(found, '"', (size_t)(end - found))) != NULL; found++) {
        Py_ssize_t word = found - t.s;
        while (is(t, word - 1, '\\')) word--;
        if (ends(t, word, "data") && is_member_with_base64(t, found - t.s)) return 1;
    }
    for (found = t.s; (found = memchr(found, ',', (size_t)(end - found))) != NULL; found++)
        if (ends(t, found - t.s, "base64") && all(t, found + 1 - t.s, found + 5 - t.s, BASE64)) return 1;
    return 0;
}

static PyObject *may_embed(PyObject *module, PyObject *text)
{
    char *bytes;
    Py_ssize_t length;
    (void)module;
    if (PyBytes_AsStringAndSize(text, &bytes, &length) < 0) return NULL;
    Text t = {(const unsigned char *)bytes, length};
    return PyBool_FromLong(has_long_run(t) || has_place_for_base64(t));
}

static PyObject *glance(PyObject *module, PyObject *text)
{
    char *bytes;
    Py_ssize_t length;
    (void)module;
    if (PyBytes_AsStringAndSize(text, &bytes, &length) < 0) return NULL;
    Text t = {(const unsigned char *)bytes, length};
    return PyLong_FromLong(seen_in(t));
}

static PyMethodDef functions[] = {
    {"glance", glance, METH_O, "Return what may be in a text, as the sum of the bits."},
    {"may_embed", may_embed, METH_O, "Return False if a JSON text has nothing that could be text in base64."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "glance", .m_doc = "glance.py, in one pass.", .m_size = 0, .m_methods = functions,
};

PyMODINIT_FUNC PyInit_glance(void)
{
    set_kinds();
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL) return NULL;
    if (PyModule_AddIntConstant(module, "HOLDS", HOLDS) < 0 || PyModule_AddIntConstant(module, "ENCODED", ENCODED) < 0 ||
        PyModule_AddIntConstant(module, "MATCHES", MATCHES) < 0 ||
        PyModule_AddIntConstant(module, "ESCAPED", ESCAPED) < 0 ||
        PyModule_AddIntConstant(module, "FOREIGN", FOREIGN) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
