/* See interrupt.h. How a compiled loop is stopped on a stock LuaJIT:
 *
 * A debug hook alone is seen by the interpreter only. But while the sampling profiler is on in "l" mode, each compiled
 * trace checks, at each source line, whether a sample is due, and leaves to the interpreter if so. So the profiler is
 * started with an interval that never passes, and a press sets the hook and sends one SIGPROF. The trace leaves, the
 * interpreter meets the hook. The hook is an ordinary place to raise an error, or to run a whole REPL and return.
 *
 * LuaJIT drops a sample that falls into a finalizer or into the profiler's own callback, so a timer on the process's
 * user time repeats the request until the hook has taken it.
 *
 * Inside the pause REPL, which runs in the hook, hooks are off; there the profiler's callback raises the error. */
#include "interrupt.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <luajit.h>

#define RETRY_MICROSECONDS 10000
#define SAME_PRESS_SECONDS 0.1          /* timeout(1) and terminals may send one press twice */
#define PROFILE_NEVER "li100000000"     /* line mode; the interval is in milliseconds: 28 hours of CPU time */

static lua_State *watched;
static pthread_t watched_thread;

static volatile sig_atomic_t current_mode = INTERRUPT_RAISE;
static volatile sig_atomic_t interactive;
static volatile sig_atomic_t presses;           /* that no hook has taken yet */
static double press_time;                       /* of the last press that counted */
static volatile sig_atomic_t noted;
static volatile sig_atomic_t raised;
static volatile sig_atomic_t raised_in_profiler;
static int pausing;                             /* the pause function is running */

/* The engine's switch: while on, long calls in C return early with the status "interrupted". NULL: no engine loaded. */
static void (*volatile engine_interrupt)(int on);

/* The hook that was set when the press came (a coverage tool's, say); put back when ours has run. */
static lua_Hook replaced_hook;
static int replaced_mask, replaced_count;

static const char pause_key;                    /* its address is the registry key of the pause function */

static void take_hook(lua_State *L, lua_Debug *ar);

static void set_retry_timer(int on)
{
    struct itimerval interval = {{0, on ? RETRY_MICROSECONDS : 0}, {0, on ? RETRY_MICROSECONDS : 0}};
    setitimer(ITIMER_VIRTUAL, &interval, NULL);     /* a plain system call: safe in a signal handler */
}

/* Makes the running code meet take_hook (or, when paused, profiler_callback). Runs in signal handlers. */
static void request(void)
{
    struct sigaction profiler;
    if (current_mode != INTERRUPT_PAUSED) {
        lua_Hook hook = lua_gethook(watched);
        if (hook != take_hook) {
            replaced_hook = hook;
            replaced_mask = lua_gethookmask(watched);
            replaced_count = lua_gethookcount(watched);
        }
        lua_sethook(watched, take_hook, LUA_MASKCOUNT, 1);
    }
    /* Without a handler (a script stopped the profiler) the signal would end the process. */
    if (sigaction(SIGPROF, NULL, &profiler) == 0 && profiler.sa_handler != SIG_DFL && profiler.sa_handler != SIG_IGN)
        pthread_kill(watched_thread, SIGPROF);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void on_press(int signal_number)
{
    int saved_errno = errno;
    if (!pthread_equal(pthread_self(), watched_thread)) {
        pthread_kill(watched_thread, signal_number);
    } else if (current_mode == INTERRUPT_NOTED) {
        noted = 1;
    } else if (!presses || seconds_now() - press_time > SAME_PRESS_SECONDS) {
        press_time = seconds_now();
        if (presses < 3)
            presses = presses + 1;
        if (presses > 1 && !interactive) {
            /* The first press waits in a call that does not return: go the way of a program without a handler. */
            signal(SIGINT, SIG_DFL);
            raise(SIGINT);
        } else if (presses == 3) {
            static const char hint[] = "\nstill inside a call in C; Ctrl-\\ ends the process\n";
            if (write(STDERR_FILENO, hint, sizeof hint - 1) < 0)
                errno = 0;
        }
        /* Pausing lets a running op finish, so that it can go on later; the second press gives the op up. */
        if (engine_interrupt && (current_mode != INTERRUPT_PAUSE || presses > 1))
            engine_interrupt(1);
        request();
        set_retry_timer(1);
    }
    errno = saved_errno;
}

static void on_retry(int signal_number)
{
    int saved_errno = errno;
    if (!pthread_equal(pthread_self(), watched_thread))
        pthread_kill(watched_thread, signal_number);
    else if (presses)
        request();
    errno = saved_errno;
}

/* Forgets the pending presses; returns how many there were. */
static int take_presses(void)
{
    int count;
    sigset_t press, before;
    sigemptyset(&press);
    sigaddset(&press, SIGINT);
    sigaddset(&press, SIGVTALRM);
    pthread_sigmask(SIG_BLOCK, &press, &before);
    count = presses;
    presses = 0;
    set_retry_timer(0);
    if (lua_gethook(watched) == take_hook)
        lua_sethook(watched, replaced_hook, replaced_mask, replaced_count);
    if (engine_interrupt)
        engine_interrupt(0);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return count;
}

static int raise_interrupted(lua_State *L)
{
    raised = 1;
    lua_pushliteral(L, "interrupted");
    return lua_error(L);
}

/* Calls the pause function with the paused coroutine or main thread; true if the user asks to stop. */
static int run_pause(lua_State *L)
{
    int status, stop;
    luaL_checkstack(L, LUA_MINSTACK, "no room to pause");
    lua_pushlightuserdata(L, (void *)&pause_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isfunction(L, -1)) {
        lua_pop(L, 1);
        return 1;
    }
    lua_pushthread(L);
    pausing = 1;
    interrupt_set_mode(INTERRUPT_NOTED);
    status = lua_pcall(L, 1, 1, 0);
    interrupt_set_mode(INTERRUPT_PAUSE);
    pausing = 0;
    if (status != 0)
        lua_error(L);
    stop = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return stop;
}

static void take_hook(lua_State *L, lua_Debug *ar)
{
    int count = take_presses();
    (void)ar;
    if (count == 0 || current_mode == INTERRUPT_NOTED)
        return;
    if (current_mode == INTERRUPT_PAUSE && count == 1 && !run_pause(L))
        return;
    raise_interrupted(L);
}

/* Runs in the interpreter, not in a signal handler. An error raised here leaves LuaJIT's "inside the profiler" mark set
 * until it reaches a lua_pcall, which puts back the marks it found: see protected_call. */
static void profiler_callback(void *data, lua_State *L, int samples, int vmstate)
{
    (void)data, (void)samples, (void)vmstate;
    if (current_mode == INTERRUPT_PAUSED && presses) {
        take_presses();
        raised_in_profiler = 1;
        raise_interrupted(L);
    }
}

static void start_profiler(lua_State *L)
{
    luaJIT_profile_start(L, PROFILE_NEVER, profiler_callback, NULL);
}

static void handle(int signal_number, void (*handler)(int))
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_RESTART;
    sigaction(signal_number, &action, NULL);
}

/* LuaJIT has one profiler. Ours makes room for a script's (a start that finds one running would lose its mode) and comes back
 * when that ends. Upvalue 1: the library's start. */
static int profile_start(lua_State *L)
{
    luaJIT_profile_stop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 0);
    return 0;
}

/* Upvalue 1: the library's stop. */
static int profile_stop(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_call(L, 0, 0);
    start_profiler(L);
    return 0;
}

/* Stands in package.preload for "jit.profile". Upvalue 1: the library's loader. */
static int load_jit_profile(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    lua_getfield(L, -1, "start");
    lua_pushcclosure(L, profile_start, 1);
    lua_setfield(L, -2, "start");
    lua_getfield(L, -1, "stop");
    lua_pushcclosure(L, profile_stop, 1);
    lua_setfield(L, -2, "stop");
    return 1;
}

void interrupt_install(lua_State *L)
{
    struct sigaction present;
    watched = L;
    watched_thread = pthread_self();
    start_profiler(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_getfield(L, -1, "jit.profile");
    if (lua_isfunction(L, -1)) {
        lua_pushcclosure(L, load_jit_profile, 1);
        lua_setfield(L, -2, "jit.profile");
    } else {
        lua_pop(L, 1);
    }
    lua_pop(L, 2);
    if (sigaction(SIGINT, NULL, &present) == 0 && present.sa_handler == SIG_IGN)
        return;
    handle(SIGVTALRM, on_retry);
    handle(SIGINT, on_press);
}

interrupt_mode interrupt_set_mode(interrupt_mode mode)
{
    interrupt_mode before = (interrupt_mode)current_mode;
    current_mode = mode;
    if (mode == INTERRUPT_NOTED && presses)
        take_presses();
    return before;
}

void interrupt_set_interactive(int on)
{
    interactive = on;
}

int interrupt_was_noted(void)
{
    int taken = noted;
    noted = 0;
    return taken;
}

int interrupt_was_raised(void)
{
    return raised;
}

/* interrupt(address: number): the engine's `void pg_interrupt(int on)`, as an address: the engine is loaded by FFI, where
 * this program's linker cannot see it. */
static int l_interrupt(lua_State *L)
{
    lua_Number address = luaL_checknumber(L, 1);
    void *pointer = (void *)(uintptr_t)address;
    void (*function)(int);
    luaL_argcheck(L, address > 0, 1, "the address of pg_interrupt expected");
    memcpy(&function, &pointer, sizeof function);
    engine_interrupt = function;
    return 0;
}

/* on_pause(f): f(thread) -> stop. */
static int l_on_pause(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushlightuserdata(L, (void *)&pause_key);
    lua_pushvalue(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

static int pack_results(lua_State *L, int box, int first)
{
    int i, count = lua_gettop(L) - first + 1;
    for (i = count; i >= 1; i--)
        lua_rawseti(L, box, i);
    return count;
}

/* (f, handler, box) -> the number of results, which go into box behind the status. */
static int protected_body(lua_State *L)
{
    int ok;
    lua_pushvalue(L, 1);
    ok = lua_pcall(L, 0, LUA_MULTRET, 2) == 0;
    lua_pushboolean(L, ok);
    lua_insert(L, 4);
    lua_pushnumber(L, pack_results(L, 3, 4));
    lua_setfield(L, 3, "n");
    if (raised_in_profiler)
        lua_error(L);       /* only to reach the outer lua_pcall, which clears the profiler's mark */
    return 0;
}

/* call(f, handler) -> ok, results or the handler's result. As xpcall, and Ctrl-C raises in f, in a pause too. */
static int l_call(lua_State *L)
{
    int i, count;
    interrupt_mode before;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    lua_newtable(L);
    raised_in_profiler = 0;
    lua_pushcfunction(L, protected_body);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 3);
    before = interrupt_set_mode(pausing ? INTERRUPT_PAUSED : INTERRUPT_RAISE);
    i = lua_pcall(L, 3, 0, 0);
    interrupt_set_mode(before);
    lua_getfield(L, 3, "n");
    count = (int)lua_tointeger(L, -1);
    if (count == 0) {           /* raised outside of f: in between, or no memory for the results */
        lua_pushboolean(L, 0);
        if (i != 0)
            lua_pushvalue(L, 4);
        else
            lua_pushliteral(L, "interrupted");
        return 2;
    }
    raised_in_profiler = 0;
    luaL_checkstack(L, count, "too many results");
    for (i = 1; i <= count; i++)
        lua_rawgeti(L, 3, i);
    return count;
}

/* set_mode("raise", "pause" or "noted"). */
static int l_set_mode(lua_State *L)
{
    static const char *const names[] = {"raise", "pause", "noted", NULL};
    static const interrupt_mode modes[] = {INTERRUPT_RAISE, INTERRUPT_PAUSE, INTERRUPT_NOTED};
    interrupt_set_mode(modes[luaL_checkoption(L, 1, NULL, names)]);
    return 0;
}

static int l_set_interactive(lua_State *L)
{
    interrupt_set_interactive(lua_toboolean(L, 1));
    return 0;
}

void interrupt_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"interrupt", l_interrupt},
        {"on_pause", l_on_pause},
        {"call", l_call},
        {"set_mode", l_set_mode},
        {"set_interactive", l_set_interactive},
        {NULL, NULL}
    };
    luaL_register(L, NULL, functions);
}
