-- Mistakes planted into the engine's source must be found: each is compiled into a library of its own, beside the one
-- under test, and the specs that claim to see its kind are run on it and must fail, naming the op.
local cjson = require "cjson"
local shell = require "spec.build.shell"
local quote = shell.quote

local folder

-- The command that compiles `path` into the object whose name contains `object`.
local function compile_command(path, object)
    for _, entry in ipairs(cjson.decode(shell.read(shell.build .. "/compile_commands.json"))) do
        if entry.file == shell.source .. "/" .. path and entry.command:find(object, 1, true) then
            return entry.command, entry.directory
        end
    end
    error(("no command compiles %s into %s"):format(path, object))
end

local function replace(text, from, to)
    local at = text:find(from, 1, true)
    assert(at, ("expected to find: %s"):format(from))
    assert(not text:find(from, at + 1, true), ("found twice: %s"):format(from))
    return text:sub(1, at - 1) .. to .. text:sub(at + #from)
end

-- A library that differs from the one under test in one line of one file.
local function plant(path, object, from, to)
    local text = shell.read(path)
    local wrong = replace(text, from, to)
    local source, made = folder .. "/wrong.c", folder .. "/wrong.o"
    shell.write(source, ('#line 1 "%s"\n'):format(path) .. wrong)
    local command, directory = compile_command(path, object)
    local output = command:match("%-o (%S+)")
    local where = path:match("^(.*)/")
    command = replace(command, " -o " .. output, " -I" .. quote(shell.source .. "/" .. where) .. " -o " .. quote(made))
    command = replace(command, " -c " .. shell.source .. "/" .. path, " -c " .. quote(source))
    shell.must(("cd %s && %s"):format(quote(directory), command))

    local library = folder .. "/libperigee.so"
    local link
    for line in shell.must(("ninja -C %s -t commands libperigee.so"):format(quote(shell.build))):gmatch("[^\n]+") do
        if line:find("-shared", 1, true) then link = line end
    end
    assert(link, "expected a command that links the library")
    link = link:gsub("^:%s*&&%s*", ""):gsub("%s*&&%s*:%s*$", "")
    link = link:gsub(" %-o %S+", " -o " .. quote(library):gsub("%%", "%%%%"), 1)
    link = replace(link, " " .. output .. " ", " " .. quote(made) .. " ")
    shell.must(("cd %s && %s"):format(quote(shell.build), link))
    return library
end

-- Runs a spec file on a library; its status and what it printed.
local function run(library, spec)
    return shell.run(("PERIGEE_LIBRARY=%s luajit /usr/bin/busted %s"):format(quote(library), spec))
end

describe("planted mistakes", function()
    setup(function() folder = shell.temporary_folder() end)
    teardown(function() shell.must("rm -rf " .. quote(folder)) end)

    it("leave a library that passes where nothing is wrong", function()
        local library = plant("engine/ops/reduce.c", "libperigee", "/* ---- prod ---- */", "/* ---- products ---- */")
        local status, output = run(library, "spec/gradcheck_spec.lua")
        assert(status == 0, output)
    end)

    it("in a gradient are caught by gradcheck", function()
        local library = plant("engine/ops/reduce.c", "libperigee",
            "1.0 / (double)count_of(&m, a->mask)", "1.01 / (double)count_of(&m, a->mask)")
        local status, output = run(library, "spec/gradcheck_spec.lua")
        assert.is_not.equal(0, status)
        assert.is_truthy(output:find("gradients of mean", 1, true), output)
    end)

    it("in a kernel are caught by the comparison with PyTorch", function()
        local isa = require("perigee").cpu_isa()
        local library = plant("kernels/cpu/optim.c", "kernels_" .. isa,
            "lr / (1 - pow(hyper[1], step))", "lr / (1 - pow(hyper[2], step))")
        local status, output = run(library, "spec/optim/optimizer_spec.lua")
        assert.is_not.equal(0, status)
        assert.is_truthy(output:find("follow PyTorch", 1, true), output)
    end)
end)
