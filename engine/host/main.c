/* The perigee program: LuaJIT with Perigee's Lua files at hand, and the REPL. Options, the `arg` table and exit codes are
 * luajit's. */
#include "host.h"
#include "interrupt.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <luajit.h>
#include <lualib.h>

#define EXIT_INTERRUPTED 130        /* 128 + SIGINT, as shells count */

/* LuaJIT's own limits are for small programs: 1,000 different op calls in a script would flush the compiled code over
 * and over. In KB and traces. */
#define LIMIT_TRACES "maxtrace=20000"
#define LIMIT_CODE "maxmcode=32768"

static const char usage[] =
    "usage: perigee [options] [script [arguments]]\n"
    "\n"
    "  -e code     run the code\n"
    "  -l module   require the module\n"
    "  -i          open the REPL afterwards; Ctrl-C pauses a running script\n"
    "  -j command  control the compiler: off, on, flush, v, dump, p\n"
    "  -O[option]  tune the compiler\n"
    "  -E          ignore LUA_INIT, LUA_PATH and LUA_CPATH\n"
    "  -v, --version  print the versions\n"
    "  -h, --help  print this\n"
    "  --          end of the options\n"
    "  -           run standard input\n"
    "\n"
    "Without arguments: the REPL on a terminal, else standard input is run.\n"
    "Environment: PERIGEE_LINE_EDITOR (readline, libedit, none), PERIGEE_HISTORY (a file).\n";

typedef struct {
    int argc;
    char **argv;
    int script;                     /* argv index of the script; argc if there is none */
    int interactive, version, help, no_environment;
    int has_code;                   /* an -e or -l: no REPL, no standard input afterwards */
    int status;                     /* the exit status */
} program;

/* ---- errors ---- */

static int add_traceback(lua_State *L)
{
    if (!lua_isstring(L, 1)) {
        if (lua_isnoneornil(L, 1) || !luaL_callmeta(L, 1, "__tostring") || !lua_isstring(L, -1))
            return 1;
        lua_remove(L, 1);
    }
    luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

static int ends_with_interrupted(const char *message)
{
    static const char word[] = "interrupted";
    const char *line_end = strchr(message, '\n');
    size_t length = line_end ? (size_t)(line_end - message) : strlen(message);
    size_t word_length = sizeof word - 1;
    return length >= word_length && memcmp(message + length - word_length, word, word_length) == 0;
}

/* Prints and pops the error, if status says that there is one. Returns the exit status. */
static int report(lua_State *L, int status)
{
    const char *message;
    int result = EXIT_FAILURE;
    if (status == 0)
        return EXIT_SUCCESS;
    message = lua_tostring(L, -1);
    if (!message)
        message = lua_isnil(L, -1) ? NULL : "(error object is not a string)";
    if (message) {
        fflush(stdout);
        fprintf(stderr, "perigee: %s\n", message);
        fflush(stderr);
        if (interrupt_was_raised() && ends_with_interrupted(message))
            result = EXIT_INTERRUPTED;
    }
    lua_pop(L, 1);
    return result;
}

/* Calls the function below its arguments; no results. Returns the exit status. */
static int run(lua_State *L, int arguments)
{
    int function = lua_gettop(L) - arguments, status;
    lua_pushcfunction(L, add_traceback);
    lua_insert(L, function);
    status = lua_pcall(L, arguments, 0, function);
    lua_remove(L, function);
    if (status != 0)
        lua_gc(L, LUA_GCCOLLECT, 0);
    return report(L, status);
}

static int run_loaded(lua_State *L, int load_status)
{
    return load_status == 0 ? run(L, 0) : report(L, load_status);
}

/* ---- options ---- */

/* Fills p from argv. Returns 0 if an option is not known or lacks its argument. */
static int read_options(program *p)
{
    int i;
    for (i = 1; i < p->argc && p->argv[i][0] == '-'; i++) {
        const char *option = p->argv[i];
        int whole = option[1] == '\0' || option[2] == '\0';
        if (strcmp(option, "--version") == 0) {
            p->version = 1;
            continue;
        }
        if (strcmp(option, "--help") == 0) {
            p->help = 1;
            continue;
        }
        switch (option[1]) {
        case '\0':
            p->script = i;
            return 1;
        case '-':
            p->script = i + 1;
            return whole;
        case 'i':
            p->interactive = 1;
            break;
        case 'v':
            p->version = 1;
            break;
        case 'h':
            p->help = 1;
            break;
        case 'E':
            p->no_environment = 1;
            break;
        case 'e':
            p->has_code = 1;
            /* fall through */
        case 'l':
        case 'j':
            whole = 1;
            if (option[2] == '\0' && (++i >= p->argc || p->argv[i][0] == '-'))
                return 0;
            break;
        case 'O':
            whole = 1;
            break;
        default:
            return 0;
        }
        if (!whole)
            return 0;
    }
    p->script = i;
    return 1;
}

/* arg[0] is the script, arg[1].. its arguments, arg[-1], arg[-2].. what stands before it. */
static void set_arg(lua_State *L, const program *p)
{
    int i;
    lua_createtable(L, p->argc - p->script, p->script);
    for (i = 0; i < p->argc; i++) {
        lua_pushstring(L, p->argv[i]);
        lua_rawseti(L, -2, i - p->script);
    }
    lua_setglobal(L, "arg");
}

static void push_jit_field(lua_State *L, const char *name)
{
    lua_getglobal(L, "jit");
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
}

/* Pushes the comma-separated words as strings; returns their number. */
static int push_words(lua_State *L, const char *words)
{
    int count = 0;
    while (*words) {
        size_t length = strcspn(words, ",");
        luaL_checkstack(L, 1, "too many options");
        lua_pushlstring(L, words, length);
        count++;
        words += length + (words[length] == ',');
    }
    return count;
}

/* -O: a level or settings for jit.opt.start. */
static int tune_compiler(lua_State *L, const char *settings)
{
    push_jit_field(L, "opt");
    lua_getfield(L, -1, "start");
    lua_remove(L, -2);
    return run(L, push_words(L, *settings ? settings : "3"));
}

/* -j: jit.on, jit.off or jit.flush; else the module jit.NAME, started with what follows "=". */
static int control_compiler(lua_State *L, const char *command)
{
    const char *equals = strchr(command, '=');
    size_t length = equals ? (size_t)(equals - command) : strlen(command);
    lua_pushlstring(L, command, length);
    push_jit_field(L, lua_tostring(L, -1));
    lua_remove(L, -2);
    if (!lua_isfunction(L, -1)) {
        lua_pop(L, 1);
        lua_getglobal(L, "require");
        lua_pushliteral(L, "jit.");
        lua_pushlstring(L, command, length);
        lua_concat(L, 2);
        if (lua_pcall(L, 1, 1, 0) != 0)
            return report(L, 1);
        lua_getfield(L, -1, "start");
        lua_remove(L, -2);
    }
    return run(L, equals ? push_words(L, equals + 1) : 0);
}

static int require_module(lua_State *L, const char *name)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, name);
    return run(L, 1);
}

/* Runs -e, -l, -j and -O in order. */
static int run_options(lua_State *L, const program *p)
{
    int i, status = EXIT_SUCCESS;
    for (i = 1; i < p->script && i < p->argc && status == EXIT_SUCCESS; i++) {
        const char *option = p->argv[i], *value = option + 2;
        if (option[1] != 'e' && option[1] != 'l' && option[1] != 'j' && option[1] != 'O')
            continue;
        if (*value == '\0' && option[1] != 'O')
            value = p->argv[++i];
        switch (option[1]) {
        case 'e':
            status = run_loaded(L, luaL_loadbuffer(L, value, strlen(value), "=(command line)"));
            break;
        case 'l':
            status = require_module(L, value);
            break;
        case 'j':
            status = control_compiler(L, value);
            break;
        default:
            status = tune_compiler(L, value);
        }
    }
    return status;
}

/* LUA_INIT: code, or @file. */
static int run_init(lua_State *L)
{
    const char *init = getenv(LUA_INIT);
    if (!init)
        return EXIT_SUCCESS;
    if (init[0] == '@')
        return run_loaded(L, luaL_loadfile(L, init + 1));
    return run_loaded(L, luaL_loadbuffer(L, init, strlen(init), "=" LUA_INIT));
}

/* ---- scripts and the REPL ---- */

static int run_script(lua_State *L, const program *p)
{
    const char *file = p->argv[p->script];
    int i, status;
    if (strcmp(file, "-") == 0 && strcmp(p->argv[p->script - 1], "--") != 0)
        file = NULL;                /* standard input */
    status = luaL_loadfile(L, file);
    if (status != 0)
        return report(L, status);
    luaL_checkstack(L, p->argc - p->script, "too many arguments");
    for (i = p->script + 1; i < p->argc; i++)
        lua_pushstring(L, p->argv[i]);
    return run(L, p->argc - p->script - 1);
}

static int run_repl(lua_State *L)
{
    interrupt_set_mode(INTERRUPT_NOTED);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "perigee.repl");
    if (lua_pcall(L, 1, 1, 0) != 0)
        return report(L, 1);
    lua_getfield(L, -1, "run");
    lua_remove(L, -2);
    return run(L, 0);
}

/* In a pause the REPL answers; it is loaded when the first pause comes. */
static int pause_script(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "perigee.repl.pause");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static void set_on_pause(lua_State *L)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "loaded");
    lua_getfield(L, -1, "perigee.host");
    lua_getfield(L, -1, "on_pause");
    lua_pushcfunction(L, pause_script);
    lua_call(L, 1, 0);
    lua_pop(L, 3);
}

static void print_version(void)
{
    puts("Perigee " PG_VERSION " (" LUAJIT_VERSION ")");
    fflush(stdout);
}

/* What the command line asks for, in order. Returns the exit status. */
static int serve(lua_State *L, const program *p)
{
    int status = EXIT_SUCCESS, has_script = p->script < p->argc;
    if (!p->no_environment)
        status = run_init(L);
    if (status != EXIT_SUCCESS)
        return status;
    if (p->version && !p->interactive)
        print_version();
    if (p->interactive) {
        interrupt_set_interactive(1);
        interrupt_set_mode(INTERRUPT_PAUSE);
    }
    status = run_options(L, p);
    if (status == EXIT_SUCCESS && has_script)
        status = run_script(L, p);
    if (p->interactive) {
        int repl_status = run_repl(L);      /* after an error too: its globals are worth a look */
        return status != EXIT_SUCCESS ? status : repl_status;
    }
    if (status != EXIT_SUCCESS || has_script || p->has_code || p->version)
        return status;
    if (isatty(STDIN_FILENO)) {
        interrupt_set_interactive(1);
        return run_repl(L);
    }
    return run_loaded(L, luaL_loadfile(L, NULL));
}

static int protected_main(lua_State *L)
{
    program *p = lua_touserdata(L, 1);
    lua_settop(L, 0);
    if (p->no_environment) {
        lua_pushboolean(L, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    }
    lua_gc(L, LUA_GCSTOP, 0);
    luaL_openlibs(L);
    lua_gc(L, LUA_GCRESTART, -1);
    set_arg(L, p);
    interrupt_install(L);
    host_open(L, p->argv[0]);
    set_on_pause(L);
    if ((p->status = tune_compiler(L, LIMIT_TRACES "," LIMIT_CODE)) == EXIT_SUCCESS)
        p->status = serve(L, p);
    return 0;
}

int main(int argc, char **argv)
{
    program p = {0};
    lua_State *L;
    int status;
    p.argc = argc;
    p.argv = argv;
    if (argc < 1 || !read_options(&p)) {
        fputs(usage, stderr);
        return EXIT_FAILURE;
    }
    if (p.help) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    L = luaL_newstate();
    if (!L) {
        fputs("perigee: no memory for a Lua state\n", stderr);
        return EXIT_FAILURE;
    }
    status = report(L, lua_cpcall(L, protected_main, &p));
    signal(SIGINT, SIG_DFL);        /* nothing is left that a press could stop */
    lua_close(L);
    return status != EXIT_SUCCESS ? status : p.status;
}
