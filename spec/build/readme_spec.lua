-- The tour in README.md is run, block after block as one program, and what stands behind `-->` is what it prints.
local shell = require "spec.build.shell"

--- The ```lua blocks of a text, joined so that line numbers stay those of the text.
local function program_of(markdown)
    local lines, inside, blocks = {}, false, 0
    for line in (markdown .. "\n"):gmatch("(.-)\n") do
        if line == "```lua" then
            inside, blocks = true, blocks + 1
            lines[#lines + 1] = ""
        elseif line == "```" then
            inside = false
            lines[#lines + 1] = ""
        else
            lines[#lines + 1] = inside and line or ""
        end
    end
    return table.concat(lines, "\n"), blocks
end

--- Runs a program of the tour; returns a list of {line, printed, expected} for every print.
local function run(program)
    local prints = {}
    local environment = setmetatable({
        print = function(...)
            local words = {}
            for k = 1, select("#", ...) do
                words[k] = tostring((select(k, ...)))
            end
            local printed = table.concat(words, "\t"):gsub("README%.md:%d+: ", "")
            prints[#prints + 1] = { line = debug.getinfo(2, "l").currentline, printed = printed }
        end,
    }, { __index = _G })
    local chunk = assert(loadstring(program, "@README.md"))
    setfenv(chunk, environment)()

    local expected, last = {}, nil
    local number = 0
    for line in (program .. "\n"):gmatch("(.-)\n") do
        number = number + 1
        local text = line:match("^%s*%-%-> ?(.*)$")
        if text then
            assert(last, "README.md:" .. number .. ": expects output where nothing was printed")
            expected[last] = expected[last] and expected[last] .. "\n" .. text or text
        elseif line:find("print%(") then
            last = number
        elseif line ~= "" then
            last = nil
        end
    end
    for _, print in ipairs(prints) do
        print.expected = expected[print.line]
        expected[print.line] = nil
    end
    local line = next(expected)
    assert(not line, "README.md:" .. tostring(line) .. ": its print was never reached")
    return prints
end

describe("README.md", function()
    local readme = shell.read("README.md")

    it("has a tour that runs and prints what it says", function()
        local program, blocks = program_of(readme)
        assert.is_true(blocks >= 6)
        local compared = 0
        for _, print in ipairs(run(program)) do
            if print.expected then
                assert.equal(print.expected, print.printed, "README.md:" .. print.line)
                compared = compared + 1
            end
        end
        assert.is_true(compared >= 15)
    end)

    it("is checked by code that sees a wrong output", function()
        local prints = run("print(1 + 1)\n--> 3\nprint(2)\n--> 2")
        assert.equal("2", prints[1].printed)
        assert.equal("3", prints[1].expected)
        assert.equal(prints[2].printed, prints[2].expected)
        assert.has_error(function() run("if false then print(1)\n--> 1\nend") end)
    end)

    it("names files that exist", function()
        for path in readme:gmatch("%]%(([%w_%./%-]+)%)") do
            assert.is_truthy(io.open(path), path)
        end
        for _, path in ipairs { "scripts/quickstart", "scripts/test", "engine", "kernels", "lua/perigee", "spec",
            "fixtures", "engine/include/perigee_api.h", "kernels/kernels.h", "spec/build/readme_spec.lua" } do
            assert.is_truthy(io.open(path), path)
        end
    end)

    it("keeps every room's README under a page", function()
        for _, room in ipairs { "engine", "kernels", "scripts", "spec", "fixtures" } do
            local _, lines = shell.read(room .. "/README.md"):gsub("\n", "")
            assert.is_true(lines < 90, room)
        end
    end)
end)
