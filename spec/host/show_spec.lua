local show = require "perigee.repl.show"
local loop = require "perigee.repl.loop"
local who = require "perigee.repl.who"

describe("showing a value", function()
    it("shows tables one level deep, in order", function()
        assert.are.equal("{}", show.value({}))
        assert.are.equal('{1, "two", true}', show.value({1, "two", true}))
        assert.are.equal("{1, [-1] = 0, a = 1, b = {x = {...}}}", show.value({1, b = {x = {1}}, a = 1, [-1] = 0}))
        assert.are.equal('{["end"] = 1, ["no name"] = 2}', show.value({["end"] = 1, ["no name"] = 2}))
    end)

    it("breaks long tables into lines and counts what it leaves out", function()
        local list = {}
        for i = 1, 1000 do
            list[i] = i
        end
        local text = show.value(list)
        assert.truthy(text:find("^{\n    1, 2, 3,"))
        assert.truthy(text:find("\n    ... 950 more\n}$"))
        for line in text:gmatch("[^\n]+") do
            assert.truthy(#line <= 80)
        end
    end)

    it("shortens long strings and tables inside tables", function()
        local text = show.value({("x"):rep(200), {1, 2, 3, 4, 5, 6, 7, 8}, {}})
        assert.truthy(#text < 120)
        assert.truthy(text:find("{... 8 entries}", 1, true))
        assert.truthy(text:find("{}", 1, true))
    end)

    it("shows strings as they are, and quoted inside tables", function()
        assert.are.equal("a\nb", show.value("a\nb"))
        assert.are.equal('{"a\\nb"}', show.value({"a\nb"}))
    end)

    it("uses __tostring, and survives one that fails", function()
        assert.are.equal("me", show.value(setmetatable({}, {__tostring = function() return "me" end})))
        local failing = setmetatable({}, {__tostring = function() error("no", 0) end})
        assert.are.equal("<table whose tostring fails: no>", show.value(failing))
    end)

    it("survives tables that contain themselves", function()
        local t = {}
        t.t = t
        assert.are.equal("{t = {t = {...}}}", show.value(t))
    end)

    it("puts short values on one line, and others below each other", function()
        assert.are.equal("1\tnil\tx", show.values(3, 1, nil, "x"))
        assert.are.equal("1\na\nb", show.values(2, 1, "a\nb"))
    end)
end)

describe("compiling what was typed", function()
    local function outcome(source)
        local chunk, message, more, muted, is_expression = loop.compile(source)
        if chunk then
            return (is_expression and "expression" or "statement") .. (muted and ", muted" or "")
        end
        return more and "more" or message
    end

    it("tells expressions from statements", function()
        assert.are.equal("expression", outcome("1 + 1"))
        assert.are.equal("expression", outcome("= x"))
        assert.are.equal("expression", outcome("f(x), y"))
        assert.are.equal("expression, muted", outcome("f(x);"))
        assert.are.equal("expression, muted", outcome("x ; "))
        assert.are.equal("statement", outcome("x = 1"))
        assert.are.equal("statement", outcome("x = 1;"))
        assert.are.equal("statement", outcome("return 5"))
        assert.are.equal("statement", outcome("-- a comment"))
        assert.are.equal("statement", outcome(""))
    end)

    it("asks for more where a chunk is not whole", function()
        for _, source in ipairs {"for i = 1, 2 do", "f(", "{1,", "x =", "if a then", "[[text", "--[[ comment", "1 +",
            "not", "function f()", "return {"} do
            assert.are.equal("more", outcome(source), source)
        end
    end)

    it("takes an error for an error", function()
        for _, source in ipairs {"x = = 1", '"open', "end", "f(]", "\27LJ", "1 + ;"} do
            assert.truthy(outcome(source):find("^stdin:1: "), source)
        end
    end)
end)

describe("who", function()
    it("lists what is not Lua's own", function()
        local text = who.text({print = print, pg = {}, _ = 1, mine = 5, words = "abc"})
        assert.truthy(text:find("\nmine +number +5 +\n"))
        assert.truthy(text:find('\nwords +string +"abc" +3 B\n'))
        assert.truthy(text:find("\n2 names, 3 B$"))
        assert.is_nil(text:find("print"))
    end)
end)
