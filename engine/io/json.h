/* json.h: a strict reader of JSON text (RFC 8259) as a stream of tokens, without recursion and without
 * allocating.
 *
 * The text is the reader's to change: strings are decoded in place and end with a NUL, which is why "\u0000"
 * is refused. A reader that met an error stays there: every further token is PG_JSON_ERROR.
 */
#ifndef PG_JSON_H
#define PG_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PG_JSON_ERROR = -1, PG_JSON_END = 0, PG_JSON_STRING = 's', PG_JSON_NUMBER = 'n', PG_JSON_TRUE = 't',
    PG_JSON_FALSE = 'f',
    PG_JSON_NULL = '0'          /* and the characters { } [ ] : , stand for themselves */
};

typedef struct pg_json {
    char *start, *at, *end;
    const char *error;          /* what was wrong at `at`, or NULL */
    char *string;               /* of the last PG_JSON_STRING */
    const char *number;         /* of the last PG_JSON_NUMBER: its text, number_n long */
    size_t number_n;
} pg_json;

/* Whether bytes are well-formed UTF-8: no surrogates, no overlong forms. */
bool pg_is_utf8(const char *bytes, size_t n);
void pg_json_begin(pg_json *j, char *text, size_t n);
int pg_json_next(pg_json *j);
/* Reads the next token and makes it an error if it is not `token`, saying what was expected. */
bool pg_json_expect(pg_json *j, int token, const char *expected);
/* The last number as a non-negative integer; false (without an error) where it is none or does not fit. */
bool pg_json_integer(const pg_json *j, int64_t *value);
/* Skips a value whose first token has been read. Nesting past 100 is an error. */
bool pg_json_skip(pg_json *j, int token);
/* Marks an error found by the caller. Returns PG_JSON_ERROR. */
int pg_json_fail(pg_json *j, const char *what);
/* The position of the error in bytes. */
size_t pg_json_position(const pg_json *j);

#endif
