-- Runs once before any spec file (see .busted).
--
-- busted forgets modules that a spec file loaded, but ffi.metatype is permanent: a second copy of the binding
-- would work on the first one's methods. So the engine is loaded here, once, and a module of ours that a spec
-- loads later stays loaded.
--
-- PERIGEE_BUILD names the build folder whose library is under test (default "build"); PERIGEE_SPEC_DEVICE the device on
-- which the specs make their tensors (default "cpu").

local build = os.getenv("PERIGEE_BUILD") or "build"

package.path = "./lua/?.lua;./lua/?/init.lua;./?.lua;" .. package.path

local kept = {}

-- A searcher before all others: what was loaded once under one of our names is what every later require gets.
table.insert(package.loaders, 2, function(name)
    if name ~= "perigee" and name:sub(1, 8) ~= "perigee." then
        return nil
    end
    if kept[name] ~= nil then
        return function()
            return kept[name]
        end
    end
    local path, tried = package.searchpath(name, package.path)
    if not path then
        return tried
    end
    local chunk = assert(loadfile(path))
    return function(...)
        local module = chunk(...)
        kept[name] = module == nil and true or module
        return kept[name]
    end
end)

local library = build .. "/libperigee.so"
local file = io.open(library, "rb")
if not file then
    error(library .. " is missing: build first (scripts/test does), or set PERIGEE_BUILD to a build folder")
end
file:close()

local pg = require "perigee"

local device = os.getenv("PERIGEE_SPEC_DEVICE")
if device then
    pg.set_default_device(device)
end
