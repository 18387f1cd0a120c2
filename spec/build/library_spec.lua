-- What the build promises of the library: its symbols, its flags, and that kernels of one instruction set stay apart.
local shell = require "spec.build.shell"
local quote = shell.quote

local library = shell.build .. "/libperigee.so"

local function lines(text)
    return text:gmatch("[^\n]+")
end

local function symbols(options, path)
    local found = {}
    for line in lines(shell.must(("nm %s %s"):format(options, path))) do
        local name = line:match("^%x+ %a (%S+)$")
        if name then
            found[#found + 1] = name
        end
    end
    return found
end

describe("libperigee.so", function()
    it("exports every function that perigee_api.h declares and nothing else", function()
        local header = shell.read("engine/include/perigee_api.h"):gsub("/%*.-%*/", "")
        local declared, exported = {}, {}
        for name in header:gmatch("(pg_[%w_]+)%s*%(") do
            declared[name] = true
        end
        for _, name in ipairs(symbols("-D --defined-only", quote(library))) do
            if not name:find("^__") then
                exported[name] = true
            end
        end
        assert.is_truthy(next(declared))
        local missing, surplus = {}, {}
        for name in pairs(declared) do
            if not exported[name] then missing[#missing + 1] = name end
        end
        for name in pairs(exported) do
            if not declared[name] then surplus[#surplus + 1] = name end
        end
        table.sort(missing)
        table.sort(surplus)
        assert.same({}, missing, "declared and not exported")
        assert.same({}, surplus, "exported and not declared")
    end)

    it("stays loaded, has a versioned name and needs the C library alone", function()
        local dynamic = shell.must("readelf -d " .. quote(library))
        assert.matches("NODELETE", dynamic)
        assert.matches("soname: %[libperigee%.so%.0%]", dynamic)
        for name in dynamic:gmatch("%(NEEDED%)%s+Shared library: %[(%S+)%]") do
            local known = name:find("^lib[cm]%.so") or name:find("^ld%-linux") or name:find("^lib[atu]b?san%.so")
            assert.is_truthy(known, "needs " .. name)
        end
    end)
end)

describe("the kernels", function()
    local isas = {}
    for name in lines(shell.must(("ls %s/CMakeFiles"):format(quote(shell.build)))) do
        isas[#isas + 1] = name:match("^kernels_(.*)%.dir$")
    end

    it("are compiled for the instruction sets of this architecture", function()
        local machine = shell.must("uname -m"):gsub("%s+$", "")
        assert.same(machine == "x86_64" and { "avx2", "avx512", "baseline" } or { "baseline" }, isas)
    end)

    for _, isa in ipairs(isas) do
        local objects = ("%s/CMakeFiles/kernels_%s.dir/kernels/cpu/*.o"):format(quote(shell.build), isa)

        it("of " .. isa .. " define only names that end in it", function()
            local names = symbols("-g --defined-only", objects)
            assert.is_true(#names > 10)
            for _, name in ipairs(names) do
                if not name:find("^__") then
                    assert.is_truthy(name:find("_" .. isa .. "$"), name)
                end
            end
        end)

        it("of " .. isa .. " run nothing when the library is loaded", function()
            if shell.sanitized then
                pending("the sanitizers add constructors of their own")
            end
            local sections = shell.must("readelf -SW " .. objects)
            assert.is_nil(sections:find("%.init_array"))
            assert.is_nil(sections:find("%.ctors"))
        end)
    end
end)

describe("the compiler's flags", function()
    local commands = {}
    for entry in shell.read(shell.build .. "/compile_commands.json"):gmatch("{(.-)\n}") do
        commands[#commands + 1] = {
            file = entry:match('"file": "(.-)"'),
            command = entry:match('"command": "(.-)",\n'),
        }
    end

    it("are recorded for the kernels, the engine and the program", function()
        local seen = {}
        for _, entry in ipairs(commands) do
            for _, room in ipairs { "kernels/cpu/", "engine/core/", "engine/host/", "generated/" } do
                seen[room] = seen[room] or entry.file:find(room, 1, true) ~= nil
            end
        end
        assert.same({
            ["kernels/cpu/"] = true, ["engine/core/"] = true, ["engine/host/"] = true, ["generated/"] = true,
        }, seen)
    end)

    it("keep arithmetic as written", function()
        for _, entry in ipairs(commands) do
            for _, flag in ipairs { "-ffast-math", "-Ofast", "-funsafe-math", "-fassociative-math", "-ffinite-math",
                "-freciprocal-math", "-fno-signed-zeros", "-flto", "-march=" } do
                assert.is_nil(entry.command:find(flag, 1, true), flag .. " in " .. entry.file)
            end
            assert.is_truthy(entry.command:find("-ffp-contract=off", 1, true), entry.file)
        end
    end)

    it("name instruction sets for the kernels alone", function()
        local with = 0
        for _, entry in ipairs(commands) do
            if entry.command:find(" %-m[afb]") then
                assert.is_truthy(entry.file:find("/kernels/cpu/", 1, true), entry.file)
                with = with + 1
            end
        end
        assert.equal(shell.must("uname -m"):find("x86_64") ~= nil, with > 0)
    end)
end)
