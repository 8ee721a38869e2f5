/* clip_text.c: CLIPTextModel of transformers: its configuration and its graph up to the last hidden state. Calls the
 * layers. */
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "layers.h"
#include "nn.h"

/* Configurations of transformers hold many keys that only training or text generation read; so only what the model
 * reads is looked at. */
mg_status mg_clip_config_read(struct mg_clip_config *out, const struct mg_json *config, const char *name,
                              struct mg_err *err) {
    enum { MAX_VOCABULARY = 1 << 24 }; /* ids travel as float32 */
    const char *activation;
    double epsilon;
    memset(out, 0, sizeof *out);
    MG_TRY(mg_config_object(config, name, err));
    MG_TRY(mg_config_accept(config, "model_type", "\"clip_text_model\"", name, err));
    MG_TRY(mg_config_accept(config, "hidden_act", "\"quick_gelu\"|\"gelu\"", name, err));
    MG_TRY(mg_json_get_int(&out->hidden, config, "hidden_size", 512, 1, MG_MAX_CHANNELS, name, err));
    MG_TRY(mg_json_get_int(&out->intermediate, config, "intermediate_size", 2048, 1, 4 * MG_MAX_CHANNELS, name, err));
    MG_TRY(mg_json_get_int(&out->vocabulary, config, "vocab_size", 49408, 2, MAX_VOCABULARY, name, err));
    MG_TRY(mg_json_get_int(&out->max_positions, config, "max_position_embeddings", 77, 2, MG_MAX_CHANNELS, name, err));
    MG_TRY(mg_config_int(&out->layers, config, "num_hidden_layers", 12, 1, MG_MAX_LAYERS, name, err));
    MG_TRY(mg_config_int(&out->heads, config, "num_attention_heads", 8, 1, MG_MAX_CHANNELS, name, err));
    if (out->hidden % out->heads)
        return mg_fail(err, MG_ERR_CHECKPOINT,
                       "%s: \"hidden_size\" is %lld, not divisible by \"num_attention_heads\" %d", name,
                       (long long)out->hidden, out->heads);
    MG_TRY(mg_json_get_double(&epsilon, config, "layer_norm_eps", 1e-5, name, err));
    if (!((float)epsilon > 0.0f && epsilon <= 1.0))
        return mg_fail(err, MG_ERR_CHECKPOINT, "%s: \"layer_norm_eps\" is %g; a number in (0, 1] was expected", name,
                       epsilon);
    out->epsilon = (float)epsilon;
    MG_TRY(mg_json_get_string(&activation, config, "hidden_act", "quick_gelu", name, err));
    out->activation = strcmp(activation, "gelu") ? MG_ACT_QUICK_GELU : MG_ACT_GELU;
    return MG_OK;
}

static mg_value embed(struct mg_graph *graph, const struct mg_clip_config *config, mg_value ids) {
    const int64_t tokens[] = {config->vocabulary, config->hidden};
    const int64_t positions[] = {config->max_positions, config->hidden};
    size_t outer = mg_graph_push(graph, "embeddings");
    mg_value table = mg_graph_weight(graph, "token_embedding.weight", 2, tokens);
    mg_value places = mg_graph_weight(graph, "position_embedding.weight", 2, positions);
    mg_value x = mg_op_token_embedding(graph, ids, table, places);
    mg_graph_pop(graph, outer);
    return x;
}

static mg_value attend(struct mg_graph *graph, const struct mg_clip_config *config, mg_value x, mg_value residual) {
    size_t outer = mg_graph_push(graph, "self_attn");
    mg_value q = mg_layer_linear_few_rows(graph, "q_proj", x, config->hidden, true, MG_NONE, MG_ACT_NONE);
    mg_value k = mg_layer_linear_few_rows(graph, "k_proj", x, config->hidden, true, MG_NONE, MG_ACT_NONE);
    mg_value v = mg_layer_linear_few_rows(graph, "v_proj", x, config->hidden, true, MG_NONE, MG_ACT_NONE);
    x = mg_op_attention(graph, q, k, v, config->heads, true);
    x = mg_layer_linear_few_rows(graph, "out_proj", x, config->hidden, true, residual, MG_ACT_NONE);
    mg_graph_pop(graph, outer);
    return x;
}

static mg_value encoder_layer(struct mg_graph *graph, const struct mg_clip_config *config, mg_value x) {
    mg_value y = mg_layer_layernorm(graph, "layer_norm1", x, config->epsilon);
    x = attend(graph, config, y, x);
    y = mg_layer_layernorm(graph, "layer_norm2", x, config->epsilon);
    y = mg_layer_linear_few_rows(graph, "mlp.fc1", y, config->intermediate, true, MG_NONE, config->activation);
    return mg_layer_linear_few_rows(graph, "mlp.fc2", y, config->hidden, true, x, MG_ACT_NONE);
}

mg_value mg_clip_build(struct mg_graph *graph, const struct mg_clip_config *config, mg_value ids) {
    size_t outer = mg_graph_push(graph, "text_model");
    mg_value x = embed(graph, config, ids);
    for (int i = 0; i < config->layers; i++) {
        size_t layer = mg_graph_push(graph, "encoder.layers.%d", i);
        x = encoder_layer(graph, config, x);
        mg_graph_pop(graph, layer);
    }
    x = mg_layer_layernorm(graph, "final_layer_norm", x, config->epsilon);
    mg_graph_pop(graph, outer);
    return x;
}

/* Keys are declared with "text_model."; transformers has written files with and without it. */
bool mg_clip_weight_alias(char *out, size_t bytes, const char *key, int n) {
    static const char prefix[] = "text_model.";
    if (n > 0 || strncmp(key, prefix, sizeof prefix - 1))
        return false;
    int length = snprintf(out, bytes, "%s", key + sizeof prefix - 1);
    return length > 0 && (size_t)length < bytes;
}

/* Older files hold the numbers 0, 1, 2, ... of the positions. */
bool mg_clip_may_ignore(const char *key) {
    return !strcmp(key, "text_model.embeddings.position_ids") || !strcmp(key, "embeddings.position_ids");
}
