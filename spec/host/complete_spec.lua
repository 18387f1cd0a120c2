local complete = require "perigee.repl.complete"

describe("completion", function()
    local environment, folders

    before_each(function()
        local class = {forward = function() end, features = 3}
        class.__index = class
        environment = {
            model = setmetatable({
                layers = {[0] = {weight = 1, wide = 2, bias = 3}, ["first one"] = {size = 1}},
                _hidden = 1,
                ["no name"] = 1,
            }, class),
            modern = 1,
            text = "text",
            raises = setmetatable({}, {__index = function() error("no") end}),
            string = string,
        }
        folders = {
            ["."] = {"data/", "datum.txt", ".dotted", "notes.md"},
            ["data/"] = {"train.bin", "test.bin"},
        }
    end)

    -- The word begins where an editor that breaks words at every sign but "_" sees it.
    local function at(line, extra_names)
        local word = line:match("[%w_\128-\255]*$")
        return complete.complete(line, #line - #word, {
            environment = environment,
            extra_names = extra_names,
            list_directory = function(path)
                return folders[path]
            end,
        })
    end

    it("offers globals, keywords and further names", function()
        assert.are.same({"model", "modern"}, (at("print(mod")))
        assert.are.same({"while"}, (at("whi")))
        assert.are.same({"loss"}, (at("print(los", {loss = true})))
    end)

    it("offers fields, those of a class too, and no hidden ones unless asked", function()
        assert.are.same({"features", "forward", "layers"}, (at("model.")))
        assert.are.same({"features", "forward"}, (at("x = model.f")))
        assert.are.same({"_hidden"}, (at("model._h")))
    end)

    it("follows paths through fields, numbers and strings", function()
        assert.are.same({"weight", "wide"}, (at("2 * model.layers[0].w")))
        assert.are.same({"size"}, (at("model.layers['first one'].")))
        assert.are.same({"size"}, (at('f(model.layers["first one"].s')))
    end)

    it("offers functions alone after a colon, and strings' methods", function()
        assert.are.same({"forward"}, (at("model:")))
        assert.are.same({"rep", "reverse"}, (at("text:re")))
        assert.are.same({"rep", "reverse"}, (at("string.re")))
    end)

    it("does not call or fail where a path cannot be followed", function()
        for _, line in ipairs {"raises.a.", "nothing.", "model.layers[9].", "f().", "(x).", "x..", "1.", "model..", ":",
            "model.layers[", "-- model.", "a.b.c.d:"} do
            local words = at(line)
            assert.are.equal("table", type(words), line)
        end
        assert.are.same({}, (at("raises.a.")))
        assert.are.same({}, (at("f().")))
        assert.are.same({}, (at("-- mod")))
    end)

    it("offers files inside an open string, relative to the word", function()
        local words, append = at("io.open('dat")
        assert.are.same({"data/", "datum.txt"}, words)
        assert.are.equal("'", append)
        words, append = at('io.open("data')
        assert.are.same({"data/"}, words)
        assert.are.equal("", append)
        words, append = at('io.open("data/tr')
        assert.are.same({"train.bin"}, words)
        assert.are.equal('"', append)
        words = at('io.open("data/train.b')     -- the editor's word is "b"
        assert.are.same({"bin"}, words)
        assert.are.same({".dotted"}, (complete.complete("'.d", 1, {
            environment = environment,
            list_directory = function(path)
                return folders[path]
            end,
        })))
        assert.are.same({}, (at("io.open('nowhere/")))
    end)

    it("takes a closed string for what it is", function()
        assert.are.same({"model", "modern"}, (at("f('it\\'s', mod")))
    end)

    it("indents at the start of a line", function()
        assert.are.same({"    "}, (at("")))
        assert.are.same({"    "}, (at("    ")))
    end)
end)
