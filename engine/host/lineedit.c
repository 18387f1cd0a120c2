/* See lineedit.h. The libraries are driven through their callback interface ("here is a character, tell me when the line
 * is whole"), so that this file waits for the terminal itself and Ctrl-C never has to jump out of a library. */
#include "lineedit.h"
#include "interrupt.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>

/* What ends a word for completion. A word is one name: "." and ":" end it too, and the completer looks at the line. */
#define WORD_BREAKS " \t\n\"'`~!@#$%^&*()-+=[]{}\\|;:,.<>/?"

typedef char **completion_function(const char *text, int start, int end);

/* The part of the libraries' interface in use. Optional members may be NULL. */
static struct {
    const char *name;                   /* "readline", "libedit" or "none"; NULL until the first use */
    int is_libedit;
    void (*handler_install)(const char *prompt, void (*on_line)(char *));
    void (*handler_remove)(void);
    void (*read_char)(void);
    void (*add_history)(const char *line);
    char **line_buffer;                 /* the line being edited */
    int *append_character;              /* what follows a completed word; 0: nothing */
    int *attempted_completion_over;     /* 1: do not fall back on file names */
    /* optional */
    int *suppress_append;
    void (*free_line_state)(void);
    void (*callback_sigcleanup)(void);
    void (*resize_terminal)(void);
    void (*prep_terminal)(int meta);
    void (*deprep_terminal)(void);
    int (*forced_update_display)(void);
    void (*replace_line)(const char *text, int clear_undo);
    int *point;
    int *end;
} editor;

static lua_State *reading;              /* the state that called readline; NULL outside of it */
static char *finished_line;             /* malloc'ed by the library */
static int line_is_finished;
static volatile sig_atomic_t continued; /* after Ctrl-Z and fg */

static const char completer_key;        /* its address is the registry key of the completer */

static void set_string(void *library, const char *symbol, const char *value)
{
    const char **variable = dlsym(library, symbol);
    if (variable)
        *variable = value;
}

static void set_int(void *library, const char *symbol, int value)
{
    int *variable = dlsym(library, symbol);
    if (variable)
        *variable = value;
}

/* ISO C has no cast from an object to a function pointer. */
static void find_function(void *library, const char *symbol, void *function)
{
    void *address = dlsym(library, symbol);
    memcpy(function, &address, sizeof address);
}

static char **complete(const char *text, int start, int end);

static int bind(void *library, const char *name)
{
    completion_function **attempted = dlsym(library, "rl_attempted_completion_function");
    find_function(library, "rl_callback_handler_install", &editor.handler_install);
    find_function(library, "rl_callback_handler_remove", &editor.handler_remove);
    find_function(library, "rl_callback_read_char", &editor.read_char);
    find_function(library, "add_history", &editor.add_history);
    editor.line_buffer = dlsym(library, "rl_line_buffer");
    editor.append_character = dlsym(library, "rl_completion_append_character");
    editor.attempted_completion_over = dlsym(library, "rl_attempted_completion_over");
    if (!attempted || !editor.handler_install || !editor.handler_remove || !editor.read_char || !editor.add_history ||
        !editor.line_buffer || !editor.append_character || !editor.attempted_completion_over)
        return 0;
    editor.suppress_append = dlsym(library, "rl_completion_suppress_append");
    editor.point = dlsym(library, "rl_point");
    editor.end = dlsym(library, "rl_end");
    find_function(library, "rl_free_line_state", &editor.free_line_state);
    find_function(library, "rl_callback_sigcleanup", &editor.callback_sigcleanup);
    find_function(library, "rl_resize_terminal", &editor.resize_terminal);
    find_function(library, "rl_prep_terminal", &editor.prep_terminal);
    find_function(library, "rl_deprep_terminal", &editor.deprep_terminal);
    find_function(library, "rl_forced_update_display", &editor.forced_update_display);
    find_function(library, "rl_replace_line", &editor.replace_line);
    set_string(library, "rl_readline_name", "perigee");
    set_string(library, "rl_basic_word_break_characters", WORD_BREAKS);
    set_string(library, "rl_completer_word_break_characters", WORD_BREAKS);
    set_int(library, "rl_catch_signals", 0);    /* Ctrl-C comes to interrupt.c */
    *attempted = complete;
    editor.name = name;
    editor.is_libedit = strcmp(name, "libedit") == 0;
    setlocale(LC_CTYPE, "");                    /* for characters of several bytes; numbers keep the C locale */
    return 1;
}

static void open_editor(void)
{
    static const struct { const char *name, *file; } candidates[] = {
        {"readline", "libreadline.so.8"}, {"readline", "libreadline.so.7"}, {"libedit", "libedit.so.2"},
        {"readline", "libreadline.so"}, {"libedit", "libedit.so"}
    };
    const char *wish = getenv("PERIGEE_LINE_EDITOR");
    size_t i;
    if (editor.name)
        return;
    if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
        for (i = 0; i < sizeof candidates / sizeof candidates[0]; i++) {
            void *library;
            if (wish && *wish && strcmp(wish, candidates[i].name) != 0)
                continue;
            library = dlopen(candidates[i].file, RTLD_NOW | RTLD_LOCAL);
            if (library && bind(library, candidates[i].name))
                return;
            if (library)
                dlclose(library);
        }
    }
    editor.name = "none";
}

/* ---- completion ---- */

static size_t common_prefix(const char *a, const char *b, size_t limit)
{
    size_t n = 0;
    while (n < limit && a[n] && a[n] == b[n])
        n++;
    return n;
}

/* The list on top of the stack in the libraries' form: the common prefix, then the words if there are several. NULL when
 * there are none. The library frees all of it. */
static char **matches_from_list(lua_State *L)
{
    size_t i, count = lua_objlen(L, -1), prefix = 0;
    char **matches;
    if (count == 0 || !(matches = calloc(count + 2, sizeof *matches)))
        return NULL;
    for (i = 1; i <= count; i++) {
        const char *word;
        lua_rawgeti(L, -1, (int)i);
        word = lua_tostring(L, -1);
        if (!word || !(matches[i] = strdup(word)))
            goto failed;
        lua_pop(L, 1);
        prefix = i == 1 ? strlen(matches[1]) : common_prefix(matches[1], matches[i], prefix);
    }
    if (count == 1) {
        matches[0] = matches[1];
        matches[1] = NULL;
    } else if (!(matches[0] = strndup(matches[1], prefix))) {
        goto failed;
    }
    return matches;
failed:
    for (i = 0; i < count + 2; i++)
        free(matches[i]);
    free(matches);
    return NULL;
}

/* Called by the library: the words that may stand in line[start, end). The completer: f(line up to the cursor, start) ->
 * list of words, and the character that follows a single one. */
static char **complete(const char *text, int start, int end)
{
    lua_State *L = reading;
    const char *line = *editor.line_buffer, *append;
    size_t length = line ? strlen(line) : 0;
    int top;
    char **matches = NULL;
    (void)text;
    *editor.attempted_completion_over = 1;
    *editor.append_character = 0;
    if (editor.suppress_append)
        *editor.suppress_append = 1;
    if (!L || start < 0 || end < start || (size_t)end > length || !lua_checkstack(L, LUA_MINSTACK))
        return NULL;
    top = lua_gettop(L);
    lua_pushlightuserdata(L, (void *)&completer_key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    lua_pushlstring(L, line, (size_t)end);
    lua_pushnumber(L, start);
    if (lua_isfunction(L, -3) && lua_pcall(L, 2, 2, 0) == 0 && lua_istable(L, -2)) {
        append = lua_tostring(L, -1);
        if (append && *append) {
            *editor.append_character = *append;
            if (editor.suppress_append)
                *editor.suppress_append = 0;
        }
        lua_pop(L, 1);
        matches = matches_from_list(L);
    }
    lua_settop(L, top);
    return matches;
}

static int l_set_completer(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushlightuserdata(L, (void *)&completer_key);
    lua_pushvalue(L, 1);
    lua_rawset(L, LUA_REGISTRYINDEX);
    return 0;
}

/* ---- reading ---- */

typedef enum { LINE_READ, LINE_END_OF_FILE, LINE_INTERRUPTED } line_result;

static void on_line(char *line)
{
    finished_line = line;
    line_is_finished = 1;
    editor.handler_remove();
}

static void on_continue(int signal_number)
{
    (void)signal_number;
    continued = 1;
}

static void abandon_line(void)
{
    /* libedit keeps the text for the next line; readline starts afresh, and would wipe the screen's line here. */
    if (editor.is_libedit && editor.replace_line && editor.point && editor.end) {
        editor.replace_line("", 0);
        *editor.point = *editor.end = 0;
    }
    if (editor.free_line_state)
        editor.free_line_state();
    if (editor.callback_sigcleanup)
        editor.callback_sigcleanup();
    editor.handler_remove();
    fputs("^C\n", stdout);
    fflush(stdout);
}

/* Signals that matter here are blocked except while waiting, so none slips in between a check and the wait. */
static line_result read_edited(const char *prompt)
{
    struct pollfd terminal = {STDIN_FILENO, POLLIN, 0};
    struct sigaction action, before_continue;
    sigset_t blocked, before;
    line_result result = LINE_READ;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_continue;
    sigaction(SIGCONT, &action, &before_continue);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGINT);
    sigaddset(&blocked, SIGCONT);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);

    finished_line = NULL;
    line_is_finished = 0;
    fflush(stdout);
    editor.handler_install(prompt, on_line);
    while (!line_is_finished) {
        int ready = ppoll(&terminal, 1, NULL, &before);
        if (interrupt_was_noted()) {
            abandon_line();
            result = LINE_INTERRUPTED;
            break;
        }
        if (ready > 0) {
            editor.read_char();
        } else if (continued) {
            continued = 0;
            if (editor.prep_terminal && editor.deprep_terminal) {
                editor.deprep_terminal();       /* the shell has set the terminal up for itself meanwhile */
                editor.prep_terminal(1);
            }
            if (editor.forced_update_display)
                editor.forced_update_display();
        } else if (errno == EINTR && editor.resize_terminal) {
            editor.resize_terminal();
        } else if (errno != EINTR) {
            editor.handler_remove();
            result = LINE_END_OF_FILE;
            break;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGCONT, &before_continue, NULL);
    if (result == LINE_READ && !finished_line)
        result = LINE_END_OF_FILE;
    return result;
}

/* Reads into the buffer up to a newline, which is dropped. Shares stdin's buffer with the script's io.read. */
static line_result read_plain(lua_State *L, const char *prompt)
{
    struct sigaction action, before;
    char piece[1024];
    luaL_Buffer line;
    line_result result = LINE_END_OF_FILE;
    fputs(prompt, stdout);
    fflush(stdout);
    sigaction(SIGINT, NULL, &before);
    action = before;
    action.sa_flags &= ~SA_RESTART;     /* a press must wake the read */
    sigaction(SIGINT, &action, NULL);
    luaL_buffinit(L, &line);
    for (;;) {
        if (fgets(piece, sizeof piece, stdin)) {
            size_t length = strlen(piece);
            int whole = length > 0 && piece[length - 1] == '\n';
            luaL_addlstring(&line, piece, length - (size_t)whole);
            result = LINE_READ;
            if (whole)
                break;
        } else if (ferror(stdin) && errno == EINTR) {
            clearerr(stdin);
            if (interrupt_was_noted()) {
                fputs("\n", stdout);
                result = LINE_INTERRUPTED;
                break;
            }
        } else {
            if (isatty(STDIN_FILENO))
                clearerr(stdin);        /* Ctrl-D is not for ever on a terminal */
            break;
        }
    }
    luaL_pushresult(&line);
    sigaction(SIGINT, &before, NULL);
    return result;
}

/* readline(prompt) -> line without its newline; nil at the end of the input; false after Ctrl-C. */
static int l_readline(lua_State *L)
{
    const char *prompt = luaL_checkstring(L, 1);
    interrupt_mode mode;
    line_result result;
    lua_State *outer = reading;
    open_editor();
    interrupt_was_noted();
    mode = interrupt_set_mode(INTERRUPT_NOTED);
    if (editor.handler_install) {
        reading = L;
        result = read_edited(prompt);
        reading = outer;
        if (result == LINE_READ)
            lua_pushstring(L, finished_line);
        free(finished_line);
        finished_line = NULL;
    } else {
        result = read_plain(L, prompt);
    }
    interrupt_set_mode(mode);
    if (result == LINE_END_OF_FILE)
        lua_pushnil(L);
    else if (result == LINE_INTERRUPTED)
        lua_pushboolean(L, 0);
    return 1;
}

static int l_add_history(lua_State *L)
{
    const char *line = luaL_checkstring(L, 1);
    open_editor();
    if (editor.handler_install)
        editor.add_history(line);
    return 0;
}

/* editor() -> "readline", "libedit" or "none". */
static int l_editor(lua_State *L)
{
    open_editor();
    lua_pushstring(L, editor.name);
    return 1;
}

/* is_terminal() -> whether lines come from a terminal. */
static int l_is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty(STDIN_FILENO));
    return 1;
}

/* list_directory(path) -> names, those of directories with a "/" behind; nil and the reason if it cannot be read. */
static int l_list_directory(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR *directory = opendir(path);
    struct dirent *entry;
    int count = 0;
    if (!directory) {
        lua_pushnil(L);
        lua_pushfstring(L, "%s: %s", path, strerror(errno));
        return 2;
    }
    lua_newtable(L);
    while ((entry = readdir(directory)) != NULL) {
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(directory), entry->d_name, &status, 0) == 0 && S_ISDIR(status.st_mode))
            lua_pushfstring(L, "%s/", entry->d_name);
        else
            lua_pushstring(L, entry->d_name);
        lua_rawseti(L, -2, ++count);
    }
    closedir(directory);
    return 1;
}

void lineedit_open(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"readline", l_readline},
        {"add_history", l_add_history},
        {"set_completer", l_set_completer},
        {"editor", l_editor},
        {"is_terminal", l_is_terminal},
        {"list_directory", l_list_directory},
        {NULL, NULL}
    };
    luaL_register(L, NULL, functions);
}
