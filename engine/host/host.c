/* See host.h. */
#include "host.h"
#include "interrupt.h"
#include "lineedit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>

/* Pushes the program's own path with links resolved, or argv0 if the system does not tell. */
static void push_executable(lua_State *L, const char *argv0)
{
    char *path = realpath("/proc/self/exe", NULL);
    if (!path)
        path = realpath(argv0, NULL);
    lua_pushstring(L, path ? path : argv0);
    free(path);
}

/* True, with the folder pushed in place of its name, if the string on top names a folder with Lua files of ours. */
static int is_lua_folder(lua_State *L)
{
    char *folder = NULL;
    lua_pushfstring(L, "%s/perigee/repl.lua", lua_tostring(L, -1));
    if (access(lua_tostring(L, -1), R_OK) == 0)
        folder = realpath(lua_tostring(L, -2), NULL);
    lua_pop(L, 2);
    if (!folder)
        return 0;
    lua_pushstring(L, folder);
    free(folder);
    return 1;
}

/* Pushes the folder of the Lua files, or nil. executable: stack index of the program's path. */
static void push_lua_folder(lua_State *L, int executable)
{
    const char *path = lua_tostring(L, executable);
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    static const char *const relative[] = {"/../lua", "/../share/perigee/lua"};
    size_t i;
    for (i = 0; i < sizeof relative / sizeof relative[0]; i++) {
        lua_pushlstring(L, slash ? path : ".", slash ? length : 1);
        lua_pushstring(L, relative[i]);
        lua_concat(L, 2);
        if (is_lua_folder(L))
            return;
    }
#ifdef PERIGEE_LUA_DIR
    lua_pushliteral(L, PERIGEE_LUA_DIR);
    if (is_lua_folder(L))
        return;
#endif
    lua_pushnil(L);
}

/* clock() -> seconds that passed, from some fixed point. */
static int l_clock(lua_State *L)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec * 1e-9);
    return 1;
}

void host_open(lua_State *L, const char *argv0)
{
    int top = lua_gettop(L), executable = top + 1, folder = top + 2;
    push_executable(L, argv0);
    push_lua_folder(L, executable);
    lua_getglobal(L, "package");
    if (lua_isstring(L, folder)) {
        lua_getfield(L, -1, "path");
        lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", lua_tostring(L, folder), lua_tostring(L, folder),
                        lua_tostring(L, -1));
        lua_setfield(L, -3, "path");
        lua_pop(L, 1);
    }
    lua_getfield(L, -1, "loaded");
    lua_newtable(L);
    lua_pushvalue(L, executable);
    lua_setfield(L, -2, "exe");
    lua_pushvalue(L, folder);
    lua_setfield(L, -2, "lua_dir");
    lua_pushliteral(L, PG_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushcfunction(L, l_clock);
    lua_setfield(L, -2, "clock");
    interrupt_open(L);
    lineedit_open(L);
    lua_setfield(L, -2, "perigee.host");
    lua_settop(L, top);
}
