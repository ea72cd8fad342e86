package org.imixs.streams.peer;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectWriter;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.util.FlinkRuntimeException;

/** Writes a row as a JSON object. */
final class RowEncoder<T> implements SerializationSchema<T> {
    private static final long serialVersionUID = 1L;

    private final Class<T> type;
    private transient ObjectWriter writer;

    RowEncoder(Class<T> type) {
        this.type = type;
    }

    @Override
    public void open(InitializationContext context) {
        writer = new ObjectMapper().writerFor(type);
    }

    @Override
    public byte[] serialize(T row) {
        try {
            return writer.writeValueAsBytes(row);
        } catch (JsonProcessingException e) {
            throw new FlinkRuntimeException("a row cannot be written: " + row, e);
        }
    }
}
