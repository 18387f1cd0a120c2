/* json.c: see json.h. */
#include "json.h"

#include <string.h>

bool pg_is_utf8(const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes, *end = p + n;
    while (p < end) {
        unsigned c = *p++;
        if (c < 0x80) continue;
        int more = c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
        if (more == 0 || end - p < more) return false;
        unsigned low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
        unsigned high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
        if (p[0] < low || p[0] > high) return false;
        for (int i = 1; i < more; i++)
            if (p[i] < 0x80 || p[i] > 0xbf) return false;
        p += more;
    }
    return true;
}

void pg_json_begin(pg_json *j, char *text, size_t n)
{
    memset(j, 0, sizeof *j);
    j->start = j->at = text;
    j->end = text + n;
}

int pg_json_fail(pg_json *j, const char *what)
{
    if (!j->error) j->error = what;
    return PG_JSON_ERROR;
}

size_t pg_json_position(const pg_json *j) { return (size_t)(j->at - j->start); }

/* Four hexadecimal digits; -1 where there are none. */
static int hex4(pg_json *j)
{
    int v = 0;
    if (j->end - j->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = *j->at++;
        int digit = c >= '0' && c <= '9' ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        v = v * 16 + digit;
    }
    return v;
}

static char *put_utf8(char *to, unsigned c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* The escape behind a backslash, decoded to `to` (never longer than its text); NULL where it is none. */
static char *escape(pg_json *j, char *to)
{
    if (j->at == j->end) return NULL;
    char c = *j->at++;
    switch (c) {
    case '"': case '\\': case '/': *to++ = c; return to;
    case 'b': *to++ = '\b'; return to;
    case 'f': *to++ = '\f'; return to;
    case 'n': *to++ = '\n'; return to;
    case 'r': *to++ = '\r'; return to;
    case 't': *to++ = '\t'; return to;
    case 'u': break;
    default: return NULL;
    }
    int v = hex4(j);
    if (v <= 0 || (v >= 0xdc00 && v <= 0xdfff)) return NULL;
    if (v < 0xd800 || v > 0xdbff) return put_utf8(to, (unsigned)v);
    if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') return NULL;
    j->at += 2;
    int low = hex4(j);
    if (low < 0xdc00 || low > 0xdfff) return NULL;
    return put_utf8(to, 0x10000u + ((unsigned)(v - 0xd800) << 10) + (unsigned)(low - 0xdc00));
}

static int read_string(pg_json *j)
{
    char *to = j->string = j->at;
    while (j->at < j->end) {
        char c = *j->at++;
        if (c == '"') {
            *to = 0;
            return PG_JSON_STRING;
        }
        if ((unsigned char)c < 0x20) {
            j->at--;
            return pg_json_fail(j, "a control character in a string");
        }
        if (c != '\\') *to++ = c;
        else if (!(to = escape(j, to))) return pg_json_fail(j, "a bad escape in a string");
    }
    return pg_json_fail(j, "a string without end");
}

static bool digits(pg_json *j)
{
    char *first = j->at;
    while (j->at < j->end && *j->at >= '0' && *j->at <= '9') j->at++;
    return j->at > first;
}

static int read_number(pg_json *j)
{
    char *first = j->at;
    if (*j->at == '-') j->at++;
    char *whole = j->at;
    bool good = digits(j) && !(*whole == '0' && j->at - whole > 1);
    if (good && j->at < j->end && *j->at == '.') {
        j->at++;
        good = digits(j);
    }
    if (good && j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
        j->at++;
        if (j->at < j->end && (*j->at == '+' || *j->at == '-')) j->at++;
        good = digits(j);
    }
    if (!good) return pg_json_fail(j, "a number that is none");
    j->number = first;
    j->number_n = (size_t)(j->at - first);
    return PG_JSON_NUMBER;
}

static int read_word(pg_json *j, const char *word, int token)
{
    size_t n = strlen(word);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0)
        return pg_json_fail(j, "an unknown word");
    j->at += n;
    return token;
}

int pg_json_next(pg_json *j)
{
    if (j->error) return PG_JSON_ERROR;
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r')) j->at++;
    if (j->at == j->end) return PG_JSON_END;
    char c = *j->at;
    switch (c) {
    case '{': case '}': case '[': case ']': case ':': case ',': j->at++; return c;
    case '"': j->at++; return read_string(j);
    case 't': return read_word(j, "true", PG_JSON_TRUE);
    case 'f': return read_word(j, "false", PG_JSON_FALSE);
    case 'n': return read_word(j, "null", PG_JSON_NULL);
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return read_number(j);
        return pg_json_fail(j, "an unexpected character");
    }
}

bool pg_json_expect(pg_json *j, int token, const char *expected)
{
    if (pg_json_next(j) == token) return true;
    pg_json_fail(j, expected);
    return false;
}

bool pg_json_integer(const pg_json *j, int64_t *value)
{
    int64_t v = 0;
    for (size_t i = 0; i < j->number_n; i++) {
        char c = j->number[i];
        if (c < '0' || c > '9' || __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, c - '0', &v))
            return false;
    }
    *value = v;
    return true;
}

bool pg_json_skip(pg_json *j, int token)
{
    enum { DEPTH_MAX = 100 };
    char open[DEPTH_MAX];
    int depth = 0;
    for (;;) {
        /* token starts a value */
        bool begun = token == '{' || token == '[';
        if (begun) {
            if (depth == DEPTH_MAX) return pg_json_fail(j, "values nested too deep"), false;
            open[depth++] = (char)token;
        } else if (token != PG_JSON_STRING && token != PG_JSON_NUMBER && token != PG_JSON_TRUE &&
                   token != PG_JSON_FALSE && token != PG_JSON_NULL) {
            return pg_json_fail(j, "expected a value"), false;
        }
        /* what follows it, up to the start of the next value */
        for (;;) {
            if (depth == 0) return true;
            char in = open[depth - 1];
            token = pg_json_next(j);
            if (token == (in == '{' ? '}' : ']')) {
                depth--;
                begun = false;
                continue;
            }
            if (!begun) {
                if (token != ',')
                    return pg_json_fail(j, "expected ',' or the end of a list or an object"), false;
                token = pg_json_next(j);
            }
            if (in == '{') {
                if (token != PG_JSON_STRING) return pg_json_fail(j, "expected a key"), false;
                if (!pg_json_expect(j, ':', "expected ':'")) return false;
                token = pg_json_next(j);
            }
            break;
        }
    }
}
