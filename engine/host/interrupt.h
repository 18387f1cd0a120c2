/* Ctrl-C in the perigee program: stops or pauses Lua code at once, compiled loops included.
 *
 * Invariants:
 * - One Lua state (and the coroutines in it) is watched, the one given to interrupt_install; signals are handled on the
 *   thread that called it, other threads pass them on.
 * - A press is pending from the signal until the hook takes it, or until the mode becomes NOTED, which drops it.
 * - No Lua code runs inside a signal handler. */
#ifndef PERIGEE_HOST_INTERRUPT_H
#define PERIGEE_HOST_INTERRUPT_H

#include <lua.h>

typedef enum {
    INTERRUPT_RAISE,    /* a press raises the error "interrupted" where the program stands */
    INTERRUPT_PAUSE,    /* a press calls the pause function there; a second one, while the first waits, raises */
    INTERRUPT_PAUSED,   /* as RAISE, for code that the pause function runs */
    INTERRUPT_NOTED     /* the REPL itself is at work: a press is noted; who reads a line asks interrupt_was_noted */
} interrupt_mode;

/* Handles SIGINT from now on, unless it is ignored (nohup, a shell's background job). */
void interrupt_install(lua_State *L);

/* Sets what a press does; returns what it did before. */
interrupt_mode interrupt_set_mode(interrupt_mode mode);

/* In the REPL repeated presses never end the process; in a script the second one does, if the first one waits still. */
void interrupt_set_interactive(int on);

/* True once after presses during INTERRUPT_NOTED. */
int interrupt_was_noted(void);

/* True if the error "interrupted" has been raised by a press since the program started. */
int interrupt_was_raised(void);

/* Adds to the table on top of the stack: interrupt(address), on_pause(f), call(f, handler), set_mode(name),
 * set_interactive(on). */
void interrupt_open(lua_State *L);

#endif
