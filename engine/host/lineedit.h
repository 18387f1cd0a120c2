/* Reading lines for the REPL: through GNU readline or libedit, whichever is found when the first line is read, or through
 * the C library alone. Neither is linked: they are opened with dlopen, so the program runs without them.
 *
 * PERIGEE_LINE_EDITOR=readline, libedit or none chooses one; a terminal on both sides is needed for the first two. */
#ifndef PERIGEE_HOST_LINEEDIT_H
#define PERIGEE_HOST_LINEEDIT_H

#include <lua.h>

/* Adds to the table on top of the stack: readline(prompt), add_history(line), set_completer(f), editor(),
 * list_directory(path), is_terminal(). */
void lineedit_open(lua_State *L);

#endif
