/* What the program offers to Lua: the module "perigee.host", and where the Lua files are. */
#ifndef PERIGEE_HOST_HOST_H
#define PERIGEE_HOST_HOST_H

#include <lua.h>

/* Puts the folder of the Lua files in front of package.path and fills package.loaded["perigee.host"]. The folder is, of
 * those that exist: <folder of the program>/../lua (the build tree), <folder>/../share/perigee/lua (installed), and
 * PERIGEE_LUA_DIR if that is compiled in. argv0: the program's name as called. */
void host_open(lua_State *L, const char *argv0);

#endif
